"""QEMU itself: the binary, what it can do, its command line, and its monitor."""
