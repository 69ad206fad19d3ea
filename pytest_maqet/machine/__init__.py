"""The handle that a test holds: one VM, started, awaited, commanded, ended."""
