"""Who owns a VM, and what is left when the owner is gone: run directories, leases, keepers, locks, sweep.

The kernel keeps the books. A user of a run holds a shared `flock` (a *lease*), which is gone with the
process, whatever ended it; each QEMU has a *keeper*, its parent, that sleeps until the lease is free.
"""
