"""What makes two templates the same: a digest of everything that reached the machine until it was frozen.

That is its command line (machine type with version, CPU model, devices, network cards, but not the host's
ports or paths), every file behind it, the QEMU program, what the guest was waited and prepared for. Not:
scope, `fail_on`, the test's time-outs, forwards, the VM's name.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_maqet.config import PrepareStep, RemoteImage, VmConfig
from pytest_maqet.errors import ConfigError, StartError
from pytest_maqet.qemu.quoting import split_option
from pytest_maqet.storage.images import BaseImage, backing_chain, probe_image
from pytest_maqet.templates.manifest import FORM, FileState

#: Names of the keys of a VM that act in the guest before it is frozen, beside those on the command line.
_ACTING = ("ready", "guest", "serial", "storage")
_CPU_FACTS = ("vendor_id", "model name", "flags", "microcode")
#: Raw arguments whose files QEMU writes: with them in the key each start would want another template.
_WRITTEN_OPTIONS = frozenset({"chardev", "audiodev", "D", "pidfile", "trace"})
_WRITTEN_KEYS = frozenset({"logfile"})
_WRITING_OBJECTS = frozenset({"filter-dump"})


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
        "raw files": [_state(path) for path in _raw_files(config)],
        **{name: _dumped(config, name) for name in _ACTING},
    }
    if isinstance(config.image, RemoteImage):
        facts["image"] = config.image.sha256 or config.image.sha512
    if accelerator != "tcg":
        facts["cpu"] = host_cpu()  # `-cpu host`: a state is not for another processor
    return _digest(facts)


def prepared_key(base: str, function: Callable[..., object] | None, parts: Sequence[Any]) -> str:
    """The key of a template that a function of the suite's prepares, on top of the machine's own key.

    `parts` are what the suite says that the outcome depends on. The function counts with its source, its
    defaults and what it closes over; a `functools.partial` with its arguments. Raises ConfigError for what
    has no lasting form: a function without source, a value whose `repr` is its address.
    """
    return _digest(
        {"base": base, "function": _function(function), "parts": [_lasting(part) for part in parts]}
    )


def _function(function: Callable[..., object] | None, within: tuple[object, ...] = ()) -> Any:
    """What a function does, as far as it says so itself; `within` are those that lead to it."""
    if function is None:
        return None
    if any(function is outer for outer in within):
        return "itself"  # it calls itself, or two call each other
    lasting = functools.partial(_lasting, within=(*within, function))
    if isinstance(function, functools.partial):
        keywords = {name: lasting(value) for name, value in function.keywords.items()}
        return [lasting(function.func), [lasting(value) for value in function.args], keywords]
    bound = getattr(function, "__self__", None)
    plain = getattr(function, "__func__", function)
    try:
        source = inspect.getsource(plain)
    except (OSError, TypeError):
        raise ConfigError(
            f"what prepares a template must be a function with a source that can be read, got {function!r}",
            hint="a function of a module, or functools.partial of one",
        ) from None
    # The source is that of whole lines, where two lambdas may stand, and of a decorated function without
    # its decorator.
    code = lasting(getattr(plain, "__code__", None))
    cells = [lasting(value) for value in _closed_over(plain)]
    defaults = [lasting(value) for value in getattr(plain, "__defaults__", None) or ()]
    by_name = lasting(getattr(plain, "__kwdefaults__", None) or {})
    return [source, code, defaults, by_name, cells, None if bound is None else lasting(bound)]


def _closed_over(function: Any) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # nothing is in it yet
            yield cell.cell_contents


def _lasting(value: Any, within: tuple[object, ...] = ()) -> Any:
    """A value in a form that is the same in every process."""
    lasting = functools.partial(_lasting, within=within)
    if isinstance(value, (str, bytes, int, float)):
        return repr(value)
    if inspect.isfunction(value) or inspect.ismethod(value) or isinstance(value, functools.partial):
        return _function(value, within)
    if inspect.iscode(value):
        return [value.co_code.hex(), value.co_names, [lasting(constant) for constant in value.co_consts]]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(lasting(item)) for item in value)
    if isinstance(value, Mapping):
        return {str(key): lasting(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [lasting(item) for item in value]
    if inspect.ismodule(value) or inspect.isclass(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    said = repr(value)
    if re.search(r" at 0x[0-9a-f]+", said):
        raise ConfigError(
            f"the key of a template cannot have {said} in it: that is another text in each process",
            hint="put what matters of it into `key=` as text or numbers",
        )
    return said


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


def sources_of(config: VmConfig, qemu: Path) -> dict[str, FileState]:
    """The states, by absolute path, of QEMU's program and of the files that the key of a template is made of.

    Without those of an embedded guest or of a downloaded image: these count by their contents.
    """
    found = {}
    for path in (qemu.resolve(), *_files(config), *_raw_files(config)):
        with suppress(OSError):  # gone since it was read
            found[os.fspath(path)] = FileState.of(path)
    return found


def _raw_files(config: VmConfig) -> Iterator[Path]:
    """Files of this host that raw arguments name, but for those that QEMU writes itself."""
    for argument in config.arguments:
        pairs = split_option(argument.value or "")
        if argument.option in _WRITTEN_OPTIONS or any(value in _WRITING_OBJECTS for _key, value in pairs):
            continue
        for key, value in pairs:
            if key not in _WRITTEN_KEYS and value.startswith("/") and Path(value).is_file():
                yield Path(value)


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
            found = file.lstat() if file != path else file.stat()  # a link that is named itself is followed
            digest.update(f"{file.relative_to(path)}\0{found.st_mode:o}\0".encode(errors="surrogateescape"))
            if file.is_symlink() and file != path:
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


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
