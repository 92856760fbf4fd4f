"""``python -m raftkv``: the same as the ``raftkv`` command."""

from raftkv.cli import main

if __name__ == "__main__":
    main(prog_name="raftkv")
