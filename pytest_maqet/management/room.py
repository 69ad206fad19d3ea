"""Room for one more VM: starts wait until its memory can be promised, across workers and without deadlocks.

With `--maqet-max-memory SIZE` the guests of a run have SIZE together. With `auto`, what the host has
available counts, less what was promised to VMs of this user and is not used yet; where waiting would not
help, a VM that has half of its memory free now starts all the same, and a person is told.

Room is taken before any lock, for all VMs of a test's fixtures at once; who may wait is in `room_rules`.
Spares that no test has asked for go first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from pytest_maqet.config import VmConfig
from pytest_maqet.deadline import Deadline, pauses
from pytest_maqet.errors import LockTimeout, NoRoom
from pytest_maqet.host_memory import host_memory
from pytest_maqet.machine.core import MachineCore
from pytest_maqet.management import room_words
from pytest_maqet.management.room_rules import Sight, Ties, why_not_wait, with_qemu
from pytest_maqet.management.wishes import Identity, Wanted
from pytest_maqet.runs.promises import Books, Entry, Kind, Promise, now
from pytest_maqet.runs.vm_directory import VmDirectory

#: How often the books are looked at while waiting, at least, in seconds. A look costs a millisecond.
LONGEST_PAUSE = 0.1
#: How long a test may be held up by the question whether there is room for a spare, in seconds.
SPARE_PATIENCE = 0.02
#: How long killed spares may take to be gone, in seconds; their memory is free with their end.
SPARES_END = 5.0
#: After this many seconds of waiting a person is told.
TELL_AFTER = 5.0


class Room:
    """The memory of one VM, promised or not yet (`machine.host.Room`).

    `times`: for how many QEMUs that live at once. A `with` block gives it back at its end unless it went to a
    VM.
    """

    def __init__(self, rooms: Rooms, config: VmConfig, kind: Kind, times: int = 1) -> None:
        self.config = config
        self.kind: Kind = kind
        self.times = times
        #: Whether `reserve` may wait.
        self.patient = kind != "spare"
        self.promise: Promise | None = None
        self._rooms = rooms
        self._given = False

    def reserve(self) -> None:
        """Have the memory promised, waited for where that helps. Raises NoRoom. Idempotent."""
        self._rooms.reserve([self])

    @contextmanager
    def hold(self, config: VmConfig, directory: VmDirectory) -> Iterator[tuple[int, ...]]:
        """Descriptors for the QEMU that the block starts there; raises NoRoom, and never waits.

        The promise of a VM that all workers share is its QEMU's alone afterwards.
        """
        late = self.promise is None
        self._rooms.use(self, config, directory)
        assert self.promise is not None
        yield (self.promise.fileno(),)
        if late and self.kind == "run":
            self.close()

    def claim(self) -> None:
        """A test takes the spare; raises NoRoom where that had to go."""
        self._rooms.claim(self)

    def give_to(self, vm: MachineCore) -> None:
        """It ends with that VM from here on, unless the VM has room already."""
        if vm.room is None:
            vm.room = self
            self._given = True

    def close(self) -> None:
        """Give the memory back; a QEMU that has it keeps it. Idempotent."""
        if self.promise is not None:
            self.promise.close()
            self.promise = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if not self._given:
            self.close()


class Rooms:
    """All room of one process of a run.

    `limit` is in bytes, None stands for `auto`. `owner` says who we are, `ties` what we have that others may
    be waiting for, `report` shows a line to a person.
    """

    def __init__(
        self,
        run: Path,
        limit: int | None,
        *,
        owner: Callable[[], str],
        ties: Callable[[], Ties],
        report: Callable[[str], None],
    ) -> None:
        self.books = Books(run)
        self._limit = limit
        self._owner = owner
        self._ties = ties
        self._report = report
        self._ahead: dict[Identity, Room] = {}
        self._told_short = False

    def of(self, wanted: Wanted, *, times: int = 1) -> Room:
        """The room of what is wanted; that which was reserved for it ahead, where there is one."""
        ahead = self._ahead.pop(wanted.identity, None)
        kind: Kind = "run" if wanted.config.scope == "run" and wanted.shared else "vm"
        return ahead or Room(self, wanted.config, kind, times)

    def of_spare(self, wanted: Wanted) -> Room:
        """The room of a clone that no test has asked for yet."""
        return Room(self, wanted.config, "spare")

    def has_room_for_spare(self, wanted: Wanted) -> bool:
        """Whether a spare could be had now; none can where somebody waits.

        Nor where the books cannot be read: no test has asked for it, so none fails for it.
        """
        try:
            with self.books.opened(SPARE_PATIENCE) as entries:
                sight = self._sight(entries)
                return not sight.wishes and sight.lack([self._line(self.of_spare(wanted))]) <= 0
        except (LockTimeout, OSError):
            return False

    @contextmanager
    def together(self, several: Sequence[Wanted]) -> Iterator[None]:
        """Reserve the room of several VMs at once, for `of` in the block. Raises NoRoom."""
        rooms = {wanted.identity: self.of(wanted) for wanted in several}
        try:
            self.reserve(list(rooms.values()))
            self._ahead = rooms
            yield
        finally:
            left, self._ahead = self._ahead, {}
            for room in left.values():
                room.close()

    def reserve(self, rooms: Sequence[Room]) -> None:
        """Promise these, all at once or none; see `Room.reserve`."""
        missing = [room for room in rooms if room.promise is None]
        if not missing:
            return
        deadline = Deadline.after(missing[0].config.timeouts.lock)
        wanted = [self._line(room) for room in missing]
        wish: Entry | None = None
        held: Promise | None = None
        told = False
        sight: Sight | None = None
        try:
            for pause in pauses(deadline):
                with self.books.opened() as entries:
                    sight = self._sight(entries, but=wish)
                    if self._take(sight, missing, wanted, wish):
                        return
                    if held is None:
                        held, wish = self.books.write(_wish(wanted, self._ties()))
                if not told and deadline.elapsed > TELL_AFTER:
                    told = True
                    self._report(room_words.waiting(wanted, sight))
                time.sleep(min(pause, LONGEST_PAUSE))
        finally:
            if held is not None:
                held.close()
        raise _refused(
            wanted, sight or self._sight(()), f"{deadline} have passed, and there was never enough"
        )

    def use(self, room: Room, config: VmConfig, directory: VmDirectory) -> None:
        """A QEMU is about to be started there; see `Room.hold`."""
        deadline = Deadline.after(SPARES_END)
        while True:
            with self.books.opened() as entries:
                sight = self._use(entries, room, config, directory)
            if sight is None:
                return
            if not sight.spares or deadline.expired:
                break
            time.sleep(0.005)  # they were killed: it does not take long
        raise _refused([self._line(room, config)], sight, "it is needed at once here")

    def _use(
        self, entries: Sequence[Entry], room: Room, config: VmConfig, directory: VmDirectory
    ) -> Sight | None:
        """None where the QEMU may start, else what stands in its way; spares go."""
        entry = _of(entries, room)
        if entry is not None and entry.kind == "evicted":
            raise NoRoom(f"the spare {config.name} had to make room")
        wanted = self._line(room, config)
        if entry is None or wanted.memory > entry.memory:
            sight = self._sight(entries, but=entry)
            if sight.lack([wanted]) > 0 and not self._runs_short(sight, [wanted]):
                self._evict(sight)
                return sight
            if entry is None:
                room.promise, entry = self.books.write(wanted)
            entry = replace(entry, memory=wanted.memory, whole=wanted.whole)
        places = [one for one in entry.directories if Path(one).exists()]
        self.books.change(replace(entry, directories=(*places, str(directory.path))))
        return None

    def claim(self, room: Room) -> None:
        """See `Room.claim`."""
        with self.books.opened() as entries:
            entry = _of(entries, room)
            if entry is None or entry.kind != "spare":
                raise NoRoom(f"the spare {room.config.name} had to make room")
            room.kind = "vm"
            self.books.change(replace(entry, kind="vm", owner=self._owner()))

    def _take(self, sight: Sight, rooms: Sequence[Room], wanted: Sequence[Entry], wish: Entry | None) -> bool:
        """Whether the rooms are ours now; raises NoRoom where they never would be."""
        if sight.impossible(wanted):
            raise _refused(wanted, replace(sight, entries=()), "it is more than there is at all")
        since = wish.since if wish is not None else now()
        enough = sight.lack(wanted) <= 0 and not sight.behind(since)
        if not enough:
            reason = why_not_wait(sight, wish, self._ties())
            if not rooms[0].patient:
                reason = "it is needed at once here"
            if not reason:
                self._evict(sight)
                return False
            if not self._runs_short(sight, wanted):
                raise _refused(wanted, sight, reason)
        for room, line in zip(rooms, wanted, strict=True):
            room.promise, _ = self.books.write(line)
        return True

    def _runs_short(self, sight: Sight, wanted: Sequence[Entry]) -> bool:
        """Whether these start although memory is short; a person is told, once in this process."""
        if wanted[0].kind == "spare" or not sight.may_run_short(wanted):
            return False
        if not self._told_short:
            self._told_short = True
            self._report(room_words.short(wanted, sight))
        return True

    def _evict(self, sight: Sight) -> None:
        """End the spares, whosever they are: they find out when they want to give one to a test."""
        for entry in sight.spares:
            if entry.kind == "spare":
                self.books.change(replace(entry, kind="evicted"))
            entry.kill()

    def _sight(self, entries: Sequence[Entry], but: Entry | None = None) -> Sight:
        others = [entry for entry in entries if but is None or entry.path != but.path]
        host = host_memory() if self._limit is None else None
        return Sight.of(others, self._limit, host, self.books.process, self.books.run)

    def _line(self, room: Room, config: VmConfig | None = None) -> Entry:
        """What the books say of a room, for a VM with this configuration."""
        config = config or room.config
        memory = config.memory * room.times
        return Entry(
            vm=config.name,
            memory=memory,
            whole=with_qemu(config.memory) * room.times,
            owner=self._owner(),
            process=self.books.process,
            kind=room.kind,
            since=now(),
        )


def _wish(wanted: Sequence[Entry], ties: Ties) -> Entry:
    """One line for all that a process waits for."""
    memory, whole = (sum(sizes) for sizes in zip(*((one.memory, one.whole) for one in wanted), strict=True))
    return replace(wanted[0], memory=memory, whole=whole, kind="wish", doors=ties.doors)


def _of(entries: Sequence[Entry], room: Room) -> Entry | None:
    """The entry behind a room."""
    promise = room.promise
    return next((entry for entry in entries if promise is not None and entry.path == promise.path), None)


def _refused(wanted: Sequence[Entry], sight: Sight, reason: str) -> NoRoom:
    message, hint = room_words.refusal(wanted, sight, reason)
    return NoRoom(message, hint=hint)
