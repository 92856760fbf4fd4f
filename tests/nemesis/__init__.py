"""The nemesis: real nodes under real faults, recorded by client processes and judged by the checkers.

``plan`` draws what happens when; ``torment`` does it to processes, disks, (``links``) the network and
(``roster``) the members, each of which lives in one of the ``places``;
``clients`` are processes that ask and record, by ``asking``; ``workloads`` is one that does what goes beyond
single keys, each part with its judge: ``ledger`` (transactions), ``watchers``, ``leases``, ``locks``,
``levels`` (of reads). They write ``notes``, and are judged by the cluster's ``record``. ``judge`` says what
must hold at the end of a round; ``round`` puts them together. ``planted`` has bugs that must be found. Run by
``scripts/nemesis``.
"""
