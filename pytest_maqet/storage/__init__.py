"""Disk images: base images (never written), overlays and new disks, and what is known about them."""
