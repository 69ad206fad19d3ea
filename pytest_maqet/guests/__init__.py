"""The embedded guests: `builtin:nano` and `builtin:linux`."""
