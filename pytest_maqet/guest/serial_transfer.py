"""Files between the host and a guest over the serial console, byte for byte.

To the guest in short lines that are acknowledged one by one; from the guest in blocks, of which one that
arrives broken (kernel messages) is asked for again in smaller pieces.
"""

from __future__ import annotations

import base64
import gzip

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import ChannelError
from pytest_maqet.guest.serial_frames import FrameReader
from pytest_maqet.guest.serial_link import SerialLink

#: Bytes in a line to the guest; with base64 and its number it stays below the 4,095 of termios(3).
LINE_BYTES = 2952
#: Data shorter than this is not worth compressing.
WORTH_COMPRESSING = 2048
#: Fetched data is asked for in multiples of this many bytes (the bs= of dd in serial_helper.sh).
UNIT = 4096
#: The largest block asked for at once, in units: 2 MiB.
LARGEST_BLOCK = 512
#: Seconds to wait for the helper to begin, and for each line of a block.
PATIENCE = 5.0
#: Seconds to wait for an acknowledgement before it is asked for.
ACKNOWLEDGED = 0.5
#: Attempts without success after which a transfer is given up.
_ATTEMPTS = 12


async def send_file(link: SerialLink, identity: str, name: str, data: bytes, deadline: Deadline) -> None:
    """Write `data` to the file `name` of the command `identity` in the guest.

    Raises ChannelError when it does not arrive whole in several attempts.
    """
    for _ in range(_ATTEMPTS):
        async with link.typing:
            helper = await link.ready(deadline)
            compress = helper.gzip and len(data) >= WORTH_COMPRESSING
            sent = gzip.compress(data, 6, mtime=0) if compress else data
            reader = link.reader(identity)
            call = helper.call("u", identity, name, "gunzip" if compress else "cat")
            await link.send(call)
            if not await _receiving(link, reader):
                link.forget()
                continue
            if not await _send_lines(link, reader, sent):
                await link.send(b"\n")  # ends the helper's loop, whatever it has understood
                continue
            await link.send(b".\n")
            if await _stored(link, reader, helper.call("t", identity, name)) == len(data):
                return
    raise ChannelError(
        f"{link.vm_name}: {len(data)} bytes did not get into the guest over the serial console"
    )


async def _receiving(link: SerialLink, reader: FrameReader) -> bool:
    """Whether the helper takes lines; where its word got lost it is asked."""
    for _ in range(_ATTEMPTS):
        answer = await reader.next("kan", ACKNOWLEDGED)
        if answer is not None:
            return answer.kind != "n"
        await link.send(b"?\n")
    return False


async def _stored(link: SerialLink, reader: FrameReader, question: bytes) -> int:
    """The size of the file as it is in the guest now; -1 when nobody tells."""
    for _ in range(_ATTEMPTS):
        answer = await reader.next("f", 2 * ACKNOWLEDGED)
        if answer is not None:
            return answer.number(0)
        await link.send(question)
    return -1


async def _send_lines(link: SerialLink, reader: FrameReader, data: bytes) -> bool:
    for number, start in enumerate(range(0, len(data), LINE_BYTES)):
        piece = base64.b64encode(data[start : start + LINE_BYTES])
        await link.send(b"%d %s\n" % (number, piece))
        if not await _acknowledged(link, reader, number + 1):
            return False
    return True


async def _acknowledged(link: SerialLink, reader: FrameReader, count: int) -> bool:
    for attempt in range(_ATTEMPTS):
        if attempt:
            await link.send(b"?\n")
        answer = await reader.next("a", ACKNOWLEDGED)
        while answer is not None and answer.number(0) < count:
            answer = await reader.next("a", ACKNOWLEDGED)
        if answer is not None:
            return answer.number(0) == count
    return False


async def fetch_file(link: SerialLink, identity: str, name: str, size: int, deadline: Deadline) -> bytes:
    """The `size` bytes of the file `name` of the command `identity` in the guest.

    Raises ChannelError when they do not arrive whole in several attempts.
    """
    compressed = await _compressed(link, identity, name, size, deadline)
    if compressed is None:
        return await _fetch_blocks(link, identity, name, size, deadline)
    return gzip.decompress(await _fetch_blocks(link, identity, f"{name}.gz", compressed, deadline))


async def _compressed(
    link: SerialLink, identity: str, name: str, size: int, deadline: Deadline
) -> int | None:
    """The size of the file's compressed copy, made now; None where that does not help."""
    async with link.typing:
        helper = await link.ready(deadline)
        if not helper.gzip or size < WORTH_COMPRESSING:
            return None
        reader = link.reader(identity)
        await link.send(helper.call("z", identity, name))
        answer = await reader.next("zn", max(PATIENCE, size / 200_000))
    smaller = answer.number(0) if answer is not None and answer.kind == "z" else -1
    return smaller if 0 < smaller < size else None


async def _fetch_blocks(link: SerialLink, identity: str, name: str, size: int, deadline: Deadline) -> bytes:
    data = bytearray()
    units = LARGEST_BLOCK
    failures = 0
    while len(data) < size:
        wanted = min(units * UNIT, size - len(data))
        async with link.typing:
            helper = await link.ready(deadline)
            reader = link.reader(identity)
            await link.send(helper.call("g", identity, name, str(len(data) // UNIT), str(units)))
            block = await reader.block(wanted, PATIENCE)
        if block is not None:
            data += block
            units = min(units * 2, LARGEST_BLOCK)
            failures = 0
            continue
        failures += 1
        units = max(1, units // 8)
        if failures >= _ATTEMPTS:
            raise ChannelError(
                f"{link.vm_name}: {size} bytes of output could not be read over the serial console: "
                "something else writes on it all the time"
            )
    return bytes(data)
