"""QMP events as they came, kept, numbered, and taken like letters from a mailbox."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Older events than this many are forgotten; a VM has a few dozen in its life, one that resets itself without
#: end has as many as it likes.
KEPT_EVENTS = 10_000
#: And older ones than of so many characters together.
KEPT_CHARACTERS = 16_000_000


@dataclass(frozen=True)
class Event:
    """One QMP event: `message` is QEMU's object `{"event", "data", "timestamp"}`."""

    number: int
    message: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The event's name, as in QEMU's QMP reference."""
        return str(self.message["event"])

    def matches(self, name: str, data: Mapping[str, Any]) -> bool:
        """Whether this is event `name` with (at least) these members in its data."""
        if self.name != name:
            return False
        found = self.message.get("data", {})
        return all(key in found and found[key] == value for key, value in data.items())


class Kept(Generic[T]):
    """The last events that came, as many as there is room for; whatever QEMU sends, memory is bounded."""

    def __init__(self) -> None:
        self._items: deque[tuple[T, int]] = deque()
        self._characters = 0
        #: how many had to go because so much came after them
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return (item for item, _size in self._items)

    def append(self, item: T, message: Mapping[str, Any]) -> None:
        """Keep the item that stands for this event."""
        self._items.append((item, len(str(message))))
        self._characters += self._items[-1][1]
        while len(self._items) > KEPT_EVENTS or (self._characters > KEPT_CHARACTERS and len(self._items) > 1):
            self.popleft()
            self.dropped += 1

    def popleft(self) -> T:
        """Take the oldest."""
        item, size = self._items.popleft()
        self._characters -= size
        return item


class Mailbox:
    """The events of one VM, in the order they came; loop-thread only.

    A linear cursor would be wrong here: SHUTDOWN comes after POWERDOWN, and a test may ask for them in either
    order. So a wait takes the oldest matching event that nobody has taken since the mark.
    """

    def __init__(self) -> None:
        self._events: Kept[Event] = Kept()
        self._taken: set[int] = set()
        self._mark = 0
        self._count = 0
        self._listeners: list[Callable[[Mapping[str, Any]], None]] = []

    @property
    def count(self) -> int:
        """How many events came so far; also the number of the next one."""
        return self._count

    def put(self, message: Mapping[str, Any]) -> None:
        """Keep an event, and tell it to those who listen."""
        self._events.append(Event(self._count, dict(message)), message)
        self._count += 1
        for listener in list(self._listeners):
            listener(message)

    def listen(self, listener: Callable[[Mapping[str, Any]], None]) -> Callable[[], None]:
        """Call `listener` with every event to come, over restarts of the VM; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def mark(self) -> None:
        """From here on: `take` sees what comes now, and nothing of it is taken."""
        self._mark = self._count
        self._taken.clear()

    @property
    def dropped(self) -> int:
        """How many events are no longer kept, because so many came after them."""
        return self._events.dropped

    def find(
        self, name: str, data: Mapping[str, Any], since: int | None = None, searched: int = 0
    ) -> Event | None:
        """The oldest matching event since number `since`, or (None) the oldest untaken one since the mark.

        `searched` is the `count` at which an earlier call with the same arguments found nothing.
        """
        first = max(self._mark if since is None else since, searched)
        for event in islice(self._events, max(0, first - self.dropped), None):
            if since is None and event.number in self._taken:
                continue
            if event.matches(name, data):
                return event
        return None

    def take(self, event: Event) -> None:
        """Nobody is given this event again until the next mark."""
        self._taken.add(event.number)

    def since(self, number: int) -> list[Event]:
        """All kept events from `number` on."""
        return list(islice(self._events, max(0, number - self.dropped), None))

    def untaken(self) -> list[Event]:
        """What a wait could still be given."""
        return [event for event in self.since(self._mark) if event.number not in self._taken]
