"""Waits: conditions, the engine that races them against failure and deadline, and the failures themselves."""
