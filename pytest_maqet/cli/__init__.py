"""The command `pytest-maqet`: one module for each of its commands, and `main`, which picks one."""
