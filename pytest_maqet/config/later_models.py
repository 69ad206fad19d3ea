"""Keys whose behaviour comes with a later version: typed and checked already, refused when they are set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from pytest_maqet.config.guest_models import CallWait
from pytest_maqet.config.model import Model
from pytest_maqet.config.value_types import FROZEN, FilePath, Switch, Text, Variable, fault, wrong


class Share(Model):
    """A folder of the host in the guest."""

    path: FilePath
    target: Text
    type: Literal["9p", "virtiofs"] = "9p"
    readonly: Switch = False


class CloudInit(Model):
    """What goes into a NoCloud seed: text, or data that is written as YAML."""

    user_data: str | Mapping[str, Any] | None = None
    meta_data: str | Mapping[str, Any] | None = None
    network_config: str | Mapping[str, Any] | None = None


class Credential(Model):
    """A systemd credential: a text, the content of a file, or of an environment variable."""

    value: str | None = None
    file: FilePath | None = None
    env: Variable | None = None


def _credential(value: Any) -> Any:
    return {"value": value} if isinstance(value, str) else value


CredentialValue = Annotated[Credential, BeforeValidator(_credential, json_schema_input_type=Credential | str)]


def _call(value: Any) -> Any:
    return {"function": value} if isinstance(value, str) else value


class PrepareStep(Model):
    """One thing to do before the freeze: exactly one of the three."""

    put: tuple[Text, Text] | None = None
    run: Text | None = None
    call: Annotated[CallWait | None, BeforeValidator(_call, json_schema_input_type=str)] = None

    @model_validator(mode="after")
    def _one(self) -> PrepareStep:
        if sum(value is not None for value in (self.put, self.run, self.call)) != 1:
            raise fault("found no single thing to do", "needed is exactly one of put, run, call")
        return self


class Collect(Model):
    """A file, or a command's output, to fetch from the guest into the test's artefacts."""

    path: Text | None = None
    run: Text | None = None
    to: Text | None = None
    on: Literal["failed", "always"] = "failed"

    @model_validator(mode="after")
    def _one(self) -> Collect:
        if (self.path is None) == (self.run is None):
            raise fault("found no single source", "needed is exactly one of path, run")
        return self


class Attach(Model):
    """A machine that already runs."""

    ssh: Text | None = None
    qmp: FilePath | None = None
    console: FilePath | None = None


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


#: A list of words, or a single one.
Words = Annotated[tuple[Text, ...], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])]


def _qemu_version(value: str) -> str:
    for part in value.split(","):
        operator = part.strip().rstrip("0123456789.")
        if operator not in (">=", "<=", ">", "<", "==", "!=") or not part.strip().removeprefix(operator):
            raise wrong(value, "allowed is a comparison such as '>=8.2'")
    return value


class Requires(Model):
    """What a test that uses the VM needs, as the marker `maqet_requires` says it."""

    kvm: Switch = False
    arch: Words = ()
    binary: Words = ()
    qemu: Annotated[Text, AfterValidator(_qemu_version)] | None = None
    guest: Words = ()
    provides: Words = ()


#: A mapping of lists.
Matrix = Annotated[Mapping[str, tuple[Any, ...]], *FROZEN]

#: Keys of a VM that cannot be set yet, with what they will do.
LATER_KEYS = {
    "tpm": "a TPM",
    "vsock": "vsock",
    "credentials": "credentials",
    "shares": "shared folders",
    "cloud_init": "cloud-init seeds",
    "collect": "collecting files from the guest",
    "after": "starting VMs in order",
    "count": "several VMs of one description",
    "matrix": "a matrix of VMs",
    "attach": "machines that already run",
    "gdb": "a gdb stub",
    "requires": "requirements in the YAML (use the marker maqet_requires)",
}

#: (path into the VM, test, words, what to do now) for values that cannot be set yet; `*` is every list item.
LATER_VALUES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str, str], ...] = (
    (("firmware",), lambda value: value == "uefi", "firmware uefi", "give the path of a firmware file"),
    (
        ("network", "*", "lan"),
        lambda value: value is not None,
        "private networks among VMs",
        "use a user network",
    ),
    (("storage", "*", "type"), lambda value: value == "virtfs", "storage of type virtfs", ""),
    (
        ("storage", "*", "persist"),
        lambda value: value not in (None, False, "false"),
        "disks that persist",
        "",
    ),
    (
        ("guest", "connect", "*"),
        lambda value: value == "ssh",
        "commands over ssh",
        "name agent and console only",
    ),
    (("guest", "key"), lambda value: value is not None, "commands over ssh", ""),
    *(
        (
            ("ready", "*", kind),
            lambda _value: True,
            f"waits of kind {kind}",
            "use run, port, agent or console",
        )
        for kind in ("ssh", "file", "unit", "process")
    ),
    (("ready", "*"), lambda value: value in ("ssh", "file", "unit", "process"), "waits of this kind", ""),
)
