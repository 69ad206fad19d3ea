"""Disk images as the storage tests need them, made by the real qemu-img."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_image(path: Path, size: str = "1M", image_format: str = "qcow2") -> Path:
    """An empty image."""
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", image_format, f"file:{path}", size], check=True, timeout=30
    )
    return path
