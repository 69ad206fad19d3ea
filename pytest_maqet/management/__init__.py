"""Which VM, for whom, until when: the manager of one process's VMs, and what it keeps its books with."""
