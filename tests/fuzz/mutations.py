"""Valid configurations, and what can be done to their bytes; the same seed gives the same mutants."""

from __future__ import annotations

import random
from collections.abc import Callable

#: Every key, in the forms people write; each is loaded as it stands by the test beside.
CORPUS = (
    b"""default: web
defaults: {timeouts: {ready: 90, command: 10.5}, memory: 512M}
vms:
  web: &web
    image: builtin:linux
    cpu: {model: max, count: 2}
    ready: [{console: "guest ready", timeout: 5}, agent, {port: 80}, {http: {port: 8080, path: /x}}]
    network: [{user: {forward: {ssh: 22, http: 80}}}]
  store: {extends: web, scope: session, fixture: the_store}
""",
    b"""vms:
  disks:
    image: disk.qcow2
    storage:
      - {name: data, type: qcow2, size: 1G, interface: scsi}
      - {name: old, type: raw, file: ../x/y.img, readonly: true}
      - name: "over.lay"
        backing_file: base image.qcow2
        backing_format: qcow2
      - {name: cd, type: cdrom, path: ~/a.iso, interface: ide}
    arguments:
      - no-reboot
      - device: {virtio-rng-pci: null, id: r0}
      - {foo: {bar: 42, baz: on}}
      - blockdev: {driver: raw, file: {driver: file, filename: ./x}}
""",
    b"""name: single
kernel: vmlinuz
initrd: initrd.img
append: "console=ttyS0 ${EXTRA:-quiet} $${x}"
machine: q35
firmware: bios
display: none
vga: std
rtc: {base: utc, clock: vm}
accel: tcg
serial: [main, debug]
fail_on: ["^oops", "(?i)segfault"]
teardown: stop
start: boot
secrets: [TOKEN, OTHER]
guest:
  connect: [console]
  user: root
  prompt: '[#$] $'
  login:
    - {expect: "login:", send: root}
    - {expect: "assword:", send_env: TOKEN}
""",
    b"""vms:
  made:
    image: {url: "https://example.org/a.qcow2", sha256: "%s"}
    prepare:
      - put: [a b, /opt/a]
      - run: |
          set -e
          echo "x: $HOME" > /etc/motd
      - {call: "module:function"}
    after_clone: [rm -f /etc/machine-id]
    provides: [root, "with: colon"]
    fail_on: {only: [panic, "x+"]}
  other: {<<: {memory: 1G}, image: {fixture: built}, fail_on: false}
"""
    % (b"0a" * 32),
    b"""# \xc3\xa4nderung\n---
vms: {a-b: {"image": 'builtin:nano', memory: 0x1000000, cpu: 1}, "b_2": ~}\n...\n""",
)
#: Pieces that have broken YAML readers or us.
PIECES = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xfe\xff", b"\t", b"\r", b"\x85", b"\xe2\x80\xa8", b"\x1b[2J",
    b"\x7f", b"&a ", b"*a", b"*web", b"<<: *web", b"<<: [*web, *web]", b"!!python/object:os.system ",
    b"!x ", b"!!int ", b"!!binary ", b"!!set ", b"!!float ", b"%TAG ! x\n", b"%YAML 1.1\n", b"---\n",
    b"...\n", b"? ", b": ", b"- ", b"[", b"]", b"{", b"}", b"'", b'"', b"|", b">", b"|9", b"#", b",", b"@",
    b"`", b"${X}", b"${", b"${X:-${X:-${X:-y}}}", b"${HOME}", b"$$", b"null", b"true", b"no", b".nan",
    b"-.inf", b"1e999", b"0x", b"0b2", b"1:2:3", b"2026-01-01", b"9" * 400, b"9" * 4400, b"1" + b":1" * 300,
    b"-1", b"1_0", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b'"\\ud800"', b'"\\0"', b'"\\U0010ffff"', b"../" * 50,
    b"/" * 300, b"~nobody/x", b"~/x", b"a" * 70_000, b"[" * 70, b"{a: " * 70, b"- " * 70,
    b"(?i)[\\x00-\\uffff]", b"(" * 120, b"fixture: x", b"{fixture: x}", b"vms:", b"extends: web",
    b"extends: store", b"\n  ", b"\n    ", b"\n",
)  # fmt: skip
#: A mutant is not longer than this.
LONGEST = 1 << 20

Mutation = Callable[[random.Random, bytes], bytes]


def mutant(seed: int, number: int) -> bytes:
    """The mutant of that number."""
    chance = random.Random(f"{seed}/{number}")
    data = chance.choice(CORPUS)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3, 5, 8))):
        data = chance.choice(MUTATIONS)(chance, data)[:LONGEST]
    return data


def _place(chance: random.Random, data: bytes) -> int:
    return chance.randrange(len(data) + 1)


def flip(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data or b"x")
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def drop(chance: random.Random, data: bytes) -> bytes:
    start = _place(chance, data)
    return data[:start] + data[start + chance.randint(1, 30) :]


def insert(chance: random.Random, data: bytes) -> bytes:
    place = _place(chance, data)
    return data[:place] + chance.choice(PIECES) + data[place:]


def replace_value(chance: random.Random, data: bytes) -> bytes:
    places = [at + 2 for at in range(len(data)) if data.startswith(b": ", at)] or [0]
    start = chance.choice(places)
    ends = (data.find(mark, start) for mark in (b"\n", b",", b"}"))
    end = min((at for at in ends if at >= 0), default=len(data))
    return data[:start] + chance.choice(PIECES) + data[end:]


def swap_lines(chance: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def double_line(chance: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    at = chance.randrange(len(lines))
    times = min(chance.choice((2, 2, 3, 200)), LONGEST // max(1, len(lines[at])) + 1)  # the rest is cut off
    return b"".join([*lines[:at], *[lines[at]] * times, *lines[at + 1 :]])


def indent(chance: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    at = chance.randrange(len(lines))
    lines[at] = b" " * chance.randint(0, 9) + lines[at].lstrip()
    return b"".join(lines)


def splice(chance: random.Random, data: bytes) -> bytes:
    other = chance.choice(CORPUS)
    return data[: _place(chance, data)] + other[_place(chance, other) :]


def grow(chance: random.Random, data: bytes) -> bytes:
    """A piece many times over: long scalars, wide lists, deep nesting."""
    place, piece = _place(chance, data), chance.choice(PIECES)
    times = min(chance.choice((10, 100, 1_000, 20_000)), LONGEST // len(piece))
    return data[:place] + piece * times + data[place:]


def bomb(chance: random.Random, data: bytes) -> bytes:
    """Aliases of aliases."""
    width = chance.randint(2, 12)
    lines = [b"b0: &b0 [x, y]"]
    for n in range(1, chance.randint(2, 20)):
        lines.append(b"b%d: &b%d [%s]" % (n, n, b", ".join([b"*b%d" % (n - 1)] * width)))
    return b"\n".join(lines) + b"\n" + data


MUTATIONS: tuple[Mutation, ...] = (
    flip, flip, drop, insert, insert, replace_value, replace_value, swap_lines, double_line, indent,
    splice, grow, bomb,
)  # fmt: skip
