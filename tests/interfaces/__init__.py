"""The tables that say what users touch: each row from curl, from the client and from the command line."""
