"""Templates: frozen, booted VMs on disk, from which clones start; what they are, what makes two the same,
where they are kept and for how long. How one is frozen, and how a clone wakes, is `machine/`'s business.
"""
