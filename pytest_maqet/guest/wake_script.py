"""Puts a resumed guest right by one shell command, for guests without a wake port: not all can be reseeded.

The clock is set by `date`. Reseeding needs ioctls (guests/wake/maqet-wake.asm tells why), which no program of
POSIX makes: maqet-wake is used where the guest has it, else perl, else python3.
"""

from __future__ import annotations

import re
import shlex

from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.wake_port import WakeAnswer, errno_words, wake_message

# Both: mix and credit (RNDADDENTROPY), or only mix, which is what the unprivileged may; then reseed.
_PERL = r"""
sysread(STDIN, $message, 88) == 88 or die "no seed came\n";
$seed = substr($message, 24);
sysopen(U, "/dev/urandom", 1) or die "/dev/urandom: $!\n";
$pool = pack("ii", 512, 64) . $seed;
ioctl(U, 0x40085203, $pool) or syswrite(U, $seed);
ioctl(U, 0x5207, 0) or die "RNDRESEEDCRNG: $!\n";
"""
_PYTHON = r"""
import fcntl, os, struct, sys
seed = os.read(0, 88)[24:]
try:
    if len(seed) != 64: sys.exit("no seed came")
    source = os.open("/dev/urandom", os.O_WRONLY)
    try: fcntl.ioctl(source, 0x40085203, struct.pack("ii", 512, 64) + seed)
    except OSError: os.write(source, seed)
    fcntl.ioctl(source, 0x5207, 0)
except OSError as error: sys.exit(f"RNDRESEEDCRNG: {error.strerror}")
"""

_BEGIN = """\
set -f
flat() { set -- $1; echo "$*"; }
clock=left reseed=left
"""
_BY_HELPER = """\
set -- $(maqet-wake --once | od -An -tu1)
clock="errno:$9" reseed="errno:${10}"
"""
_END = 'echo "clock=$clock reseed=$reseed"\n'
_LINE = re.compile(r"^clock=(?P<clock>.*?) reseed=(?P<reseed>.*)$", re.MULTILINE)


def wake_command(*, now: float | None, seed: bytes | None) -> tuple[str, bytes]:
    """A command for `/bin/sh -c` in the guest and its standard input; its output is for `wake_answer`.

    It sets the clock to `now` (seconds since 1970; None leaves it alone) and reseeds from `seed`
    (`wake_port.new_seed`; None leaves random numbers alone). The seed travels in the input, for a command can
    be read by everybody in the process list. It ends with status 0 whatever it could do.
    """
    plain = ""
    if now is not None:
        plain += _set_clock(now)
    if seed is not None:
        plain += _reseed()
    if now is not None:
        plain = f"if command -v maqet-wake >/dev/null 2>&1; then\n{_BY_HELPER}else\n{plain}fi\n"
    return _BEGIN + plain + _END, wake_message(0, now, seed)


def wake_answer(printed: str) -> WakeAnswer:
    """What the guest could do, from the output of `wake_command`.

    Raises ChannelError for what is not such output.
    """
    found = _LINE.search(printed)
    if found is None:
        raise ChannelError(f"the guest did not say whether its clock could be set, but: {printed[:200]!r}")
    return WakeAnswer(_words(found["clock"]), _words(found["reseed"]))


def _set_clock(now: float) -> str:
    # busybox date takes whole seconds only.
    return (
        f"if why=$(date -s @{now:.6f} 2>&1) || why=$(date -s @{round(now)} 2>&1); then clock=done\n"
        'else clock="failed:$(flat "$why")"; fi\n'
    )


def _reseed() -> str:
    return (
        "reseed=none\n"
        f"{_reseed_by('perl', f'perl -e {shlex.quote(_PERL)}')}"
        f'[ "$reseed" = none ] && {_reseed_by("python3", f"python3 -c {shlex.quote(_PYTHON)}")}'
    )


def _reseed_by(name: str, call: str) -> str:
    return (
        f"if command -v {name} >/dev/null 2>&1; then\n"
        f"if why=$({call} 2>&1); then reseed={name}\n"
        f'else reseed="failed:{name}: $(flat "$why")"; fi\nfi\n'
    )


def _words(said: str) -> str | None:
    """None for what was done, or was not asked for."""
    if said in {"done", "left", "perl", "python3"}:
        return None
    if said == "none":
        return "the guest has neither maqet-wake nor perl nor python3"
    kind, _, what = said.partition(":")
    if kind == "errno" and what.isascii() and what.isdigit() and len(what) <= len("4095"):
        return errno_words(int(what))
    return what.strip() or said
