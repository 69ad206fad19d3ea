"""The command `pytest-maqet`; each of its subcommands is a module here."""
