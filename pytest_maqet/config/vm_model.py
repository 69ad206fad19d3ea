"""`VmConfig`: everything that can be said about one VM, validated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, WithJsonSchema, model_validator

from pytest_maqet.config.arguments import ARGUMENTS_SCHEMA, Argument
from pytest_maqet.config.fail_on import FailOnValue
from pytest_maqet.config.guest_models import FailOn, GuestAccess, ReadyValue, unique
from pytest_maqet.config.later_models import (
    Attach,
    CloudInit,
    Collect,
    CredentialValue,
    Matrix,
    PrepareStep,
    Requires,
    Share,
    Words,
)
from pytest_maqet.config.machine_models import (
    Arch,
    BuiltinImage,
    Cpu,
    CpuValue,
    FirmwareValue,
    ImageValue,
    NetworkValue,
)
from pytest_maqet.config.model import Model
from pytest_maqet.config.storage_models import Storage
from pytest_maqet.config.value_types import (
    FROZEN,
    FilePath,
    Name,
    Number,
    Seconds,
    Size,
    Switch,
    Text,
    Variable,
    fault,
    wrong,
)

SCOPES = ("function", "class", "module", "package", "session", "run")
#: The name of the disk that `image:` makes, among those of `storage:`.
IMAGE_DISK = "root"
#: Less memory than this is a unit that was forgotten.
LEAST_MEMORY = 1 << 20
_DEFAULT_MEMORY = 256 << 20


class Origin(NamedTuple):
    """Where a VM is described: the file as the user knows it, and the line, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}" if self.line else self.file


class Rtc(Model):
    """The guest's clock (QEMU manual, `-rtc`): `base` is utc, localtime or a date."""

    base: Text | None = None
    clock: Literal["host", "rt", "vm"] | None = None
    driftfix: Literal["none", "slew"] | None = None


class Timeouts(Model):
    """How long things may take, in seconds, before `--maqet-timeout-scale` is applied."""

    ready: Seconds = 60.0
    wait: Seconds = 30.0
    command: Seconds = 60.0
    stop: Seconds = 10.0
    qmp: Seconds = 10.0
    lock: Seconds = 300.0


def _memory(size: int) -> int:
    if size < LEAST_MEMORY:
        raise wrong(size, f"that is {size} bytes, and a machine needs 1M at least; write {size or 256}M")
    return size


def _some_ports(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise fault("found an empty list", "a VM has one serial port at least")
    return unique(names)


def _unique_names(devices: tuple[Storage, ...]) -> tuple[Storage, ...]:
    seen: set[str] = set()
    for index, device in enumerate(devices):
        if device.name in seen:
            raise fault(f"there are two devices named {device.name!r}", at=(index, "name"))
        seen.add(device.name)
    return devices


def _rtc(value: Any) -> Any:
    return {"base": value} if isinstance(value, str) else value


class VmConfig(Model):
    """The resolved configuration of one VM. Equal when everything that was said is equal.

    Sizes are bytes, times seconds, paths absolute. None is "not said".
    """

    name: str

    image: ImageValue | None = None
    kernel: FilePath | None = None
    initrd: FilePath | None = None
    append: str | None = None
    firmware: FirmwareValue | None = None
    tpm: Switch = False

    binary: Text | None = None
    arch: Arch = "x86_64"
    machine: Text | None = None
    cpu: CpuValue = Cpu()
    memory: Annotated[Size, AfterValidator(_memory)] = _DEFAULT_MEMORY
    display: Text = "none"
    vga: Text | None = None
    rtc: Annotated[Rtc, BeforeValidator(_rtc, json_schema_input_type=Rtc | str)] | None = None
    vsock: Switch = False
    credentials: Annotated[Mapping[str, CredentialValue], *FROZEN] = Field(
        default_factory=dict, validate_default=True
    )
    accel: Literal["auto", "kvm", "hvf", "tcg"] | None = None

    storage: Annotated[tuple[Storage, ...], AfterValidator(_unique_names)] = ()
    network: tuple[NetworkValue, ...] = ()
    shares: tuple[Share, ...] = ()
    cloud_init: CloudInit | None = None

    guest: GuestAccess = GuestAccess()
    serial: Annotated[tuple[Name, ...], AfterValidator(_some_ports)] = ("main",)
    ready: tuple[ReadyValue, ...] | None = None
    prepare: tuple[PrepareStep, ...] = ()
    after_clone: tuple[Text, ...] = ()
    fail_on: FailOnValue = FailOn()
    collect: tuple[Collect, ...] = ()

    scope: Literal["function", "class", "module", "package", "session", "run"] = "function"
    start: Literal["auto", "boot", "clone"] | None = None
    fixture: str = Field(default_factory=lambda said: said["name"].replace("-", "_"))
    timeouts: Timeouts = Timeouts()
    teardown: Literal["kill", "stop"] = "kill"
    after: tuple[Name, ...] = ()
    count: Annotated[Number, Field(ge=1)] = 1
    matrix: Matrix = Field(default_factory=dict, validate_default=True)
    requires: Requires = Requires()
    provides: Words = ()
    secrets: tuple[Variable, ...] = ()
    attach: Attach | None = None
    gdb: Switch = False
    arguments: Annotated[tuple[Argument, ...], WithJsonSchema(ARGUMENTS_SCHEMA)] = ()

    _origin: Origin = PrivateAttr(default=Origin("", 0))
    _open_fixtures: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _check(self) -> VmConfig:
        for key in ("initrd", "append"):
            if (
                getattr(self, key) is not None
                and self.kernel is None
                and not isinstance(self.image, BuiltinImage)
            ):
                raise fault(
                    f"`{key}` without `kernel`", "it is for a kernel that is booted directly", at=(key,)
                )
        if self.image is not None:
            for index, device in enumerate(self.storage):
                if device.name == IMAGE_DISK:
                    found = f"the name {IMAGE_DISK!r} is that of the disk `image` makes"
                    raise fault(found, "choose another", at=("storage", index, "name"))
        for index, wait in enumerate(self.ready or ()):
            port = wait.console.console if wait.console is not None else None
            if port is not None and port not in self.serial:
                at = ("ready", index, "console", "console")
                raise fault(
                    f"there is no serial port {port!r}", f"allowed are {', '.join(self.serial)}", at=at
                )
        return self

    @property
    def origin(self) -> Origin:
        """Where the VM is described."""
        return self._origin

    @property
    def open_fixtures(self) -> tuple[str, ...]:
        """Fixtures whose values are still missing; the keys that need them have their defaults."""
        return self._open_fixtures

    @cached_property
    def key(self) -> str:
        """A digest of everything that was said: two VMs with the same one are the same."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, VmConfig) else NotImplemented

    def scoped(self, scope: str) -> VmConfig:
        """The same VM with another scope."""
        copy = self.model_copy(update={"scope": scope})
        vars(copy).pop("key", None)  # the digest of the other one
        return copy

    @property
    def secret_variables(self) -> tuple[str, ...]:
        """Environment variables whose values are masked: those of `secrets:`, and passwords of the guest."""
        logins = (step.send_env for step in self.guest.login)
        named = (*self.secrets, self.guest.password_env, *logins)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def described_as(self) -> str:
        """For a docstring: `VM 'web' (maqet.yaml:3)`."""
        return f"VM '{self.name}'" + (f" ({self._origin})" if self._origin.file else "")

    def paths(self) -> dict[str, Path]:
        """Every file of this host that the VM needs, by key path; paths of raw `arguments` are not in it."""
        found: dict[str, Path | None] = {"kernel": self.kernel, "initrd": self.initrd}
        found["image"] = getattr(self.image, "path", None)
        found["firmware"] = self.firmware if isinstance(self.firmware, Path) else None
        for index, device in enumerate(self.storage):
            base = device.base
            key = "backing_file" if base is not None and base == device.backing_file else "file"
            found[f"storage[{index}].{key}"] = base
        return {key: path for key, path in found.items() if path is not None}
