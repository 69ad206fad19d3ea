"""YAML into frozen, typed configuration: `load_config` gives a `Config` with a `VmConfig` for each VM."""

from pytest_maqet.config.arguments import REPEATABLE_OPTIONS, Argument
from pytest_maqet.config.configuration import Config
from pytest_maqet.config.files import discover
from pytest_maqet.config.fixture_names import default_fixture_name
from pytest_maqet.config.guest_models import FAILURE_PATTERNS, FailOn, GuestAccess, LoginStep, ReadyWait
from pytest_maqet.config.later_models import PrepareStep
from pytest_maqet.config.limits import DEFAULT_LIMITS, Limits
from pytest_maqet.config.loading import load_config
from pytest_maqet.config.machine_models import BuiltinImage, Cpu, Image, ImagePath, Network, RemoteImage
from pytest_maqet.config.storage_models import DEFAULT_DISK_SIZE, Storage
from pytest_maqet.config.value_types import format_size, parse_size
from pytest_maqet.config.vm_model import SCOPES, Origin, Rtc, Timeouts, VmConfig

__all__ = [
    "DEFAULT_DISK_SIZE",
    "DEFAULT_LIMITS",
    "FAILURE_PATTERNS",
    "REPEATABLE_OPTIONS",
    "SCOPES",
    "Argument",
    "BuiltinImage",
    "Config",
    "Cpu",
    "FailOn",
    "GuestAccess",
    "Image",
    "ImagePath",
    "Limits",
    "LoginStep",
    "Network",
    "Origin",
    "PrepareStep",
    "ReadyWait",
    "RemoteImage",
    "Rtc",
    "Storage",
    "Timeouts",
    "VmConfig",
    "default_fixture_name",
    "discover",
    "format_size",
    "load_config",
    "parse_size",
]
