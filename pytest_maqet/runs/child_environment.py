"""The environment of QEMU, its keeper and its tools: what they need, and nothing that was meant for others.

Whoever runs tests may have passwords and tokens in the environment. A process of ours gets none of them,
though only its own user and root could read them there (proc(5), /proc/PID/environ): it may crash and dump
its memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from pytest_maqet.masking import MASKS

#: Variables that are passed on, with who reads them.
PASSED_ON = frozenset({
    "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD",  # the loader; scripts around QEMU
    "SSH_AUTH_SOCK", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY",  # images far away
    "HOME", "USER", "LOGNAME", "SHELL",  # GLib, SDL and GTK for their files; SLIRP's tftp and smb
    "LANG", "LANGUAGE", "TZ",  # messages, `-rtc base=localtime`
    "TMPDIR",  # QEMU's own temporary files (`snapshot=on`)
    "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS",  # `display:`, audio
})  # fmt: skip
#: Beginnings of further ones: locale, desktop, QEMU's and its libraries' own settings.
PREFIXES = ("LC_", "XDG_", "QEMU_", "G_", "GDK_", "GTK_", "SDL_", "PULSE_", "PIPEWIRE_", "MALLOC_",
            "ALSA_", "MESA_", "LIBGL_", "ASAN_", "UBSAN_")  # fmt: skip


def child_environment(environ: Mapping[str, str] | None = None, **more: str) -> dict[str, str]:
    """What a program of ours gets of `environ` (default: this process's), and `more`.

    Variables with secrets stay out, whatever their names; those with a very short one in them do not: where
    that is `root`, it is in HOME and PATH.
    """
    found = os.environ if environ is None else environ
    hidden = MASKS.names()
    passed = {
        name: value
        for name, value in found.items()
        if (name in PASSED_ON or name.startswith(PREFIXES)) and name not in hidden
    }
    return {name: value for name, value in passed.items() if MASKS.name_in(value) is None} | more
