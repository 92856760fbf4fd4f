"""The node's durable state: a segmented write-ahead log, group commit in one thread, snapshots, recovery.

Read ``record`` (what is in the file), ``segment`` (the file), ``scan`` (what a torn tail is, and what is
damage), ``recovery`` (from files to state), ``wal`` (the other direction), ``disk`` (the thread);
``snapshot`` and ``snapshots`` (files of the machine's state), ``start`` (the newest of them and the log after
it). All of it reaches the disk through ``files.Files`` alone, so that a simulator may put a faulty disk below
the real code. The format and the reasons are in docs/wal.md.
"""
