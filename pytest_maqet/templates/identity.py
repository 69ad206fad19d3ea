"""What makes two templates the same: a digest of everything that reached the machine until it was frozen.

That is its command line (machine type with version, CPU model, devices, network cards, but not the host's
ports or paths), every file behind it, the QEMU program, what the guest was waited and prepared for. Not:
scope, `fail_on`, the test's time-outs, forwards, the VM's name.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_maqet.config import BuiltinImage, PrepareStep, RemoteImage, VmConfig
from pytest_maqet.errors import StartError
from pytest_maqet.storage.images import BaseImage, backing_chain, probe_image
from pytest_maqet.templates.manifest import FORM

#: Names of the keys of a VM that act in the guest before it is frozen, beside those on the command line.
_ACTING = ("ready", "guest", "serial")
_CPU_FACTS = ("vendor_id", "model name", "flags", "microcode")


def machine_key(
    config: VmConfig, argv: Sequence[str], *, qemu: str, guest: str | None, accelerator: str
) -> str:
    """The key of a VM's template.

    `argv` is its command line with nothing in it that differs between two starts, `qemu` names exactly that
    program, `guest` the embedded guest's contents. Raises StartError for a file that is not there.
    """
    facts: dict[str, Any] = {
        "form": FORM,
        "argv": list(argv),
        "qemu": qemu,
        "guest": guest,
        "files": [_state(path) for path in _files(config)],
        "prepare": [_step(step) for step in config.prepare],
        **{name: _dumped(config, name) for name in _ACTING},
    }
    if isinstance(config.image, RemoteImage):
        facts["image"] = config.image.sha256 or config.image.sha512
    if accelerator != "tcg":
        facts["cpu"] = host_cpu()  # `-cpu host`: a state is not for another processor
    return _digest(facts)


def prepared_key(
    base: str, function: Callable[..., object] | None, parts: Sequence[Any], overrides: Sequence[Any] = ()
) -> str:
    """The key of a template that a function of the suite's prepares, on top of the machine's own key.

    `parts` are what the suite says that the outcome depends on; the function's source counts as well.
    """
    source = ""
    if function is not None:
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):  # made by exec, or no plain function: then its name has to do
            source = getattr(function, "__qualname__", repr(type(function)))
    return _digest({"base": base, "function": source, "parts": [repr(part) for part in (*parts, *overrides)]})


def _dumped(config: VmConfig, name: str) -> Any:
    value = getattr(config, name)
    if isinstance(value, tuple):
        return [_without_time(item) for item in value]
    return _without_time(value)


def _without_time(value: Any) -> Any:
    if not hasattr(value, "model_dump"):
        return value
    dumped: dict[str, Any] = value.model_dump(mode="json")
    dumped.pop("timeout", None)
    return dumped


def _files(config: VmConfig) -> Iterator[Path]:
    """Every file that the machine reads, images with all that they are made on."""
    for key, path in config.paths().items():
        if key in ("kernel", "initrd", "firmware"):
            yield path
        else:
            yield from (image.path for image in backing_chain(_probed(path)))


def _probed(path: Path) -> BaseImage:
    try:
        return probe_image(path)
    except StartError:
        return probe_image(path, "raw")  # what the disk takes it for is checked when it is made


def _state(path: Path) -> list[Any]:
    try:
        found = path.stat()
    except OSError as error:
        raise StartError(f"{path} cannot be used: {error.strerror}") from error
    return [os.fspath(path), found.st_size, found.st_mtime_ns, found.st_ino]


def _step(step: PrepareStep) -> Any:
    """One step of `prepare:` with the content of what it takes from the host."""
    if step.put is not None:
        source, target = step.put
        return ["put", content_digest(Path(source)), target]
    if step.run is not None:
        return ["run", step.run]
    assert step.call is not None
    return ["call", step.call.function, _module_digest(step.call.function.partition(":")[0])]


def _module_digest(name: str) -> str:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise StartError(
            f"prepare: call: there is no module {name!r}", hint="it is imported as Python does, from sys.path"
        )
    return content_digest(Path(spec.origin))


def content_digest(path: Path) -> str:
    """A digest of a file, or of a tree with names, modes and contents. Raises StartError."""
    digest = hashlib.sha256()
    try:
        for file in _tree(path):
            found = file.lstat()
            digest.update(f"{file.relative_to(path)}\0{found.st_mode:o}\0".encode(errors="surrogateescape"))
            if file.is_symlink():
                digest.update(os.fsencode(file.readlink()))
            elif file.is_file():
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _tree(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.rglob("*"))
    path.stat()
    return [path]


def host_cpu() -> str:
    """What of this host's processor a guest may see under hardware virtualisation (Linux: /proc/cpuinfo)."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return ""
    lines = [line for line in first.splitlines() if line.partition("\t")[0].strip() in _CPU_FACTS]
    return _digest(lines)


def embedded_identity(config: VmConfig, identity: str | None) -> str | None:
    """The embedded guest's identity, where the VM's image is one."""
    return identity if isinstance(config.image, BuiltinImage) else None


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
