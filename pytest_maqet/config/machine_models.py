"""The machine itself: processors, image to boot, clock, network, serial ports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from pytest_maqet.config.model import Model
from pytest_maqet.config.problems import nearest
from pytest_maqet.config.value_types import FROZEN, Name, Number, Port, Text, fault, wrong

#: The guests that come with the package, as `builtin:NAME`.
BUILTIN_GUESTS = ("linux", "nano")
#: Targets QEMU has system emulators for: `qemu-system-TARGET` (configs/targets of QEMU's source).
TARGETS = (
    *("aarch64", "alpha", "arm", "avr", "hppa", "i386", "loongarch64", "m68k", "microblaze", "microblazeel"),
    *("mips", "mips64", "mips64el", "mipsel", "or1k", "ppc", "ppc64", "riscv32", "riscv64", "rx", "s390x"),
    *("sh4", "sh4eb", "sparc", "sparc64", "tricore", "x86_64", "xtensa", "xtensaeb"),
)
#: Other words for targets that people use.
_OTHER_NAMES = {
    "amd64": "x86_64",
    "x64": "x86_64",
    "arm64": "aarch64",
    "armhf": "arm",
    "i686": "i386",
    "x86": "i386",
}
_DIGITS = {"sha256": 64, "sha512": 128}


class Cpu(Model):
    """Processors: a model that QEMU knows (None: the best one for the accelerator) and how many."""

    model: Text | None = None
    count: Annotated[Number, Field(ge=1, le=4096)] = 1


def _cpu(value: Any) -> Any:
    if isinstance(value, (Mapping, Cpu)):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise wrong(value, "allowed is a number of processors, or {model: …, count: …}")
    if isinstance(value, str) and not value.isdigit():
        raise wrong(
            value, f"allowed is a number of processors, or {{model: …, count: …}}; write {{model: {value}}}"
        )
    return {"count": value}


CpuValue = Annotated[
    Cpu,
    BeforeValidator(_cpu, json_schema_input_type=Cpu | Annotated[int, Field(ge=1, le=4096)]),
]


class ImagePath(Model):
    """A disk image on this host."""

    path: Path


class BuiltinImage(Model):
    """A guest that comes with the package."""

    name: str


class RemoteImage(Model):
    """A disk image to be downloaded once; exactly one of the checksums is given, in lower case."""

    url: str
    sha256: str | None = None
    sha512: str | None = None


Image = ImagePath | BuiltinImage | RemoteImage
_IMAGE_WORDS = "allowed are a path, builtin:NAME, or {url: …, sha256: …}"


def _image(value: Any) -> Image:
    if isinstance(value, (ImagePath, BuiltinImage, RemoteImage)):
        return value
    if isinstance(value, Mapping):
        return _remote_image(value)
    if isinstance(value, Path):
        return ImagePath(path=value)
    if not isinstance(value, str) or not value:
        raise wrong(value, _IMAGE_WORDS)
    if value.startswith("builtin:"):
        return _builtin_image(value.removeprefix("builtin:"))
    if re.match(r"[a-z][a-z0-9+.-]*://", value):
        raise wrong(value, "a download needs a checksum: {url: …, sha256: …}")
    return ImagePath(path=Path(value))


def _builtin_image(name: str) -> BuiltinImage:
    if name not in BUILTIN_GUESTS:
        raise fault(
            f"there is no builtin guest {name!r}",
            f"allowed are {', '.join(f'builtin:{one}' for one in BUILTIN_GUESTS)}",
            near=f"builtin:{near}" if (near := nearest(name, BUILTIN_GUESTS)) else "",
        )
    return BuiltinImage(name=name)


def _remote_image(value: Mapping[str, Any]) -> RemoteImage:
    known = ("url", *_DIGITS)
    for key in value:
        if key not in known:
            raise fault(
                f"unknown key {key!r}", f"allowed are {', '.join(known)}", at=(key,), near=nearest(key, known)
            )
    url = value.get("url")
    if not isinstance(url, str) or not re.match(r"https?://[^/]+/", url):
        raise fault(f"found the URL {url!r}", "allowed is an http or https address of a file", at=("url",))
    sums = {name: value[name] for name in _DIGITS if value.get(name) is not None}
    if len(sums) != 1:
        raise fault(f"found {len(sums)} checksums", "needed is exactly one of sha256 and sha512")
    [(name, digest)] = sums.items()
    if not isinstance(digest, str) or not re.fullmatch(rf"[0-9a-fA-F]{{{_DIGITS[name]}}}", digest):
        raise fault(
            f"found {digest!r}", f"allowed are {_DIGITS[name]} hexadecimal digits, in quotes", at=(name,)
        )
    return RemoteImage(url=url, **{name: digest.lower()})


_IMAGE_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "properties": {
                "url": {"type": "string", "pattern": "^https?://"},
                "sha256": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
                "sha512": {"type": "string", "pattern": "^[0-9a-fA-F]{128}$"},
            },
            "required": ["url"],
            "oneOf": [{"required": ["sha256"]}, {"required": ["sha512"]}],
            "additionalProperties": False,
        },
    ]
}
ImageValue = Annotated[Image, BeforeValidator(_image), WithJsonSchema(_IMAGE_SCHEMA)]


def _firmware(value: Any) -> Any:
    if isinstance(value, Path) or value in ("bios", "uefi"):
        return value
    if not isinstance(value, str) or not value:
        raise wrong(value, "allowed are bios, uefi and a path")
    return Path(value)


FirmwareValue = Annotated[
    Literal["bios", "uefi"] | Path,
    BeforeValidator(_firmware),
    WithJsonSchema({"type": "string", "minLength": 1}),
]


def _arch(value: str) -> str:
    if value not in TARGETS:
        near = _OTHER_NAMES.get(value.lower()) or nearest(value, TARGETS)
        raise fault(f"found {value!r}", f"allowed are {', '.join(TARGETS)}", near=near)
    return value


Arch = Annotated[str, AfterValidator(_arch), WithJsonSchema({"enum": list(TARGETS)})]


class UserNetworkOptions(Model):
    """`forward`: a name for each guest TCP port that the host can reach; host ports are picked free."""

    forward: Annotated[Mapping[Name, Port], *FROZEN] = Field(default_factory=dict, validate_default=True)


class Network(Model):
    """One network card; exactly one of `user` and `lan` is set."""

    user: UserNetworkOptions | None = None
    lan: Name | None = None

    @property
    def kind(self) -> Literal["user", "lan"]:
        """What is behind the card: QEMU's own NAT, or a network among VMs."""
        return "user" if self.lan is None else "lan"

    @property
    def forward(self) -> Mapping[str, int]:
        """Guest ports by name; empty without a user network."""
        return self.user.forward if self.user is not None else {}


_NETWORK_WORDS = "allowed are user, {user: {forward: {NAME: PORT}}} and {lan: NAME}"


def _network(value: Any) -> Any:
    if value == "user":
        return {"user": {}}
    if isinstance(value, Network) or not isinstance(value, Mapping):
        if isinstance(value, Network):
            return value
        raise wrong(value, _NETWORK_WORDS)
    if "user" in value and value["user"] is None:
        value = {**value, "user": {}}
    kinds = [kind for kind in ("user", "lan") if kind in value]
    if len(kinds) == 2 or not value:
        raise fault(
            f"found {' and '.join(kinds) or 'an empty mapping'}", f"{_NETWORK_WORDS}, one for each card"
        )
    return value


NetworkValue = Annotated[Network, BeforeValidator(_network, json_schema_input_type=Network | Literal["user"])]
