"""Disk images as the storage tests need them, made by the real qemu-img and used by a real QEMU."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

#: `with qemu_io(path, "-r"):` has the image open in another process for the body.
QemuIo = Callable[..., AbstractContextManager[None]]

#: File names that a shell, an option parser, qemu-img's protocols or printf would stumble over.
STRANGE_NAMES = [
    "with space",
    "com,ma,,",
    "nbd:co:lon",
    "json:{}",
    "new\nline",
    "-o",
    "--help",
    "per%cent%s%n",
    "größe-日本",
    "back\\slash",
    "quo'te\"s",
    "$HOME;`id`&*?[a]",
    "#hash=equals",
    os.fsdecode(b"bytes-\xff\xfe"),
]


def make_image(path: Path, size: str = "1M", image_format: str = "qcow2") -> Path:
    """An empty image."""
    command = ["qemu-img", "create", "-q", "-f", image_format, f"file:{path}", size]
    subprocess.run(command, check=True, timeout=30)
    return path


def written_by_qemu(overlay: Path, command: str) -> None:
    """Have a system emulator run a command of qemu-io on a disk, attached as the disks of VMs are.

    A read with `-P` fails where the bytes are others.
    """
    name = str(overlay).replace(",", ",,")
    node = f"driver=qcow2,node-name=disk,file.driver=file,file.filename={name}"
    orders = [
        {"execute": "qmp_capabilities"},
        {
            "execute": "human-monitor-command",
            "arguments": {"command-line": f'qemu-io disk "{command}"'},
        },
        {"execute": "quit"},
    ]
    program = ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    done = subprocess.run(
        [*program, "-blockdev", node],
        input="\n".join(map(json.dumps, orders)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"QEMU ended with {done.returncode}: {done.stderr}"
    assert "Pattern verification failed" not in done.stdout, f"other bytes than expected: {done.stdout}"
    assert "ops" in done.stdout, f"QEMU did not do it: {done.stdout}"
