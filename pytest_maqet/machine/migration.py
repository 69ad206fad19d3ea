"""The state of a stopped VM, out of one QEMU and into another: its migration stream, over a socket of ours.

A socket and not a file, because that works with every QEMU: `file:` came with 8.2, and `fd:` of a regular
file went with 9. With the capability `x-ignore-shared` memory that lies in a shared file is left out of the
stream (docs/devel/migration of QEMU), which is then some hundred kilobytes. Loop-thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pytest_maqet.deadline import Deadline
from pytest_maqet.errors import NotSupported, QMPCommandError, StartError, WaitTimeout
from pytest_maqet.waiting.engine import race

if TYPE_CHECKING:
    from pytest_maqet.machine.life import Life

_PIECE = 1 << 20
_ENDS = {"completed", "failed", "cancelled"}
#: The run states out of which a guest, or a copy of it, can go on.
ALIVE = frozenset({"running", "paused", "prelaunch"})


class Unfreezable(NotSupported):
    """QEMU cannot save the state of this machine; the message has its reason."""


class Lifeless(NotSupported):
    """The guest is in a state that it does not go on from; the message says in which."""


async def refuse_lifeless(life: Life, deadline: Deadline) -> str:
    """QEMU's run state; raises Lifeless for that of a guest whose copies would never run."""
    state = await life.run_state(deadline)
    if life.vitals.failures.panicked:
        state = "guest-panicked"  # its console says so before QEMU does, or instead
    if state not in ALIVE:
        raise Lifeless(
            f"{life.config.name}: a guest that is in the state {state!r} cannot be frozen, its clones would "
            "never run",
            hint="freeze it before, or bring the guest back first: vm.reset(), vm.restore(…)",
        )
    return state


async def save_state(
    life: Life, write: Callable[[bytes], object], deadline: Deadline, *, with_memory: bool
) -> None:
    """Send the state of a VM that is stopped to `write`, piece by piece; without memory where that is shared.

    The VM stays as it is; its disks are flushed and not in use any more, until `cont`.
    Raises Unfreezable with QEMU's reason when it refuses or fails, WaitTimeout when it takes too long.
    """
    path = life.directory.path / "state.sock"
    arrived = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(_PIECE):
                write(piece)
            arrived.set_result(None)
        except Exception as error:  # noqa: BLE001 - a full disk, say: the saver raises it
            arrived.set_exception(error)
            arrived.exception()  # looked at, in case nobody else does
        finally:
            writer.close()

    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    server = await asyncio.start_unix_server(take, path)
    try:
        await _set_capabilities(life, deadline, with_memory=with_memory)
        await _migrate(life, "migrate", f"unix:{path}", deadline)
        async with asyncio.timeout(deadline.remaining):
            await arrived
    except Unfreezable:
        if arrived.done():
            arrived.result()  # we could not write, and QEMU complains of that: no lasting reason
        raise
    except TimeoutError:
        raise _late(life, "save", deadline) from None
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def load_state(
    life: Life, state: Iterable[bytes], deadline: Deadline, *, with_memory: bool = False
) -> None:
    """Load a state into a QEMU that waits for one; it stays paused.

    Raises StartError when QEMU does not take it (another machine, or half a state), QemuDied when that ended
    it.
    """
    path = life.directory.path / "state.sock"
    before = life.vitals.mailbox.count
    # In one go: QEMU takes commands in their order, and each answer that is waited for costs a millisecond.
    await asyncio.gather(
        _set_capabilities(life, deadline, with_memory=with_memory),
        life.execute("migrate-incoming", {"uri": f"unix:{path}"}, deadline),
    )
    sending = asyncio.ensure_future(_send(str(path), state))
    try:
        await _ended(life, deadline, before)
        await sending
    except Unfreezable as error:
        raise StartError(f"{life.config.name}: QEMU did not take the saved state: {error.message}") from None
    except TimeoutError:
        raise _late(life, "load", deadline) from None
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def blockers(life: Life, deadline: Deadline) -> str | None:
    """Why QEMU says that it cannot save this machine, or None. It does not know all reasons beforehand."""
    found = await life.execute("query-migrate", None, deadline)
    assert isinstance(found, dict)
    return "; ".join(found.get("blocked-reasons") or ()) or None


async def _send(path: str, state: Iterable[bytes]) -> None:
    _, writer = await asyncio.open_unix_connection(path)
    try:
        for piece in state:
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    finally:
        writer.close()


async def _set_capabilities(life: Life, deadline: Deadline, *, with_memory: bool) -> None:
    wanted = {"x-ignore-shared": not with_memory, "events": True}
    states = [{"capability": name, "state": state} for name, state in wanted.items()]
    await life.execute("migrate-set-capabilities", {"capabilities": states}, deadline)


async def _migrate(life: Life, command: str, uri: str, deadline: Deadline) -> None:
    before = life.vitals.mailbox.count
    try:
        await life.execute(command, {"uri": uri}, deadline)
    except QMPCommandError as error:
        raise Unfreezable(error.description) from None
    await _ended(life, deadline, before)


async def _ended(life: Life, deadline: Deadline, before: int) -> None:
    """Wait for the event that tells the migration's end."""

    async def last() -> str:
        while True:
            for event in reversed(life.vitals.mailbox.since(before)):
                if event.name == "MIGRATION" and event.message["data"]["status"] in _ENDS:
                    return str(event.message["data"]["status"])
            await life.vitals.pulse.wait()

    status = await race(life.vitals, last(), deadline)
    if status != "completed":
        found = await life.execute("query-migrate", None, deadline)
        assert isinstance(found, dict)
        raise Unfreezable(str(found.get("error-desc") or f"the migration {status}"))


def _late(life: Life, what: str, deadline: Deadline) -> WaitTimeout:
    return WaitTimeout(f"{life.config.name}: QEMU did not {what} the VM's state within {deadline}")
