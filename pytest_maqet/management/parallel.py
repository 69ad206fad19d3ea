"""Several things at once, on a bounded number of threads that are gone afterwards."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any


def at_once(tasks: Sequence[Callable[[], Any]], threads: int) -> list[BaseException | None]:
    """Call every task, at most `threads` at a time; return what each raised, or None, in order.

    A single task runs in the calling thread, so that an exception that a signal raises there
    (KeyboardInterrupt, a test's time-out) lands inside it. With several, the calling thread waits, and such
    an exception leaves here at once: tasks that have not begun never do, those that have go on in daemon
    threads, and the caller ends what they work on.
    """
    if len(tasks) < 2 or threads < 2:
        return [_outcome(task) for task in tasks]
    outcomes: list[BaseException | None] = [None] * len(tasks)
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(tasks)):
        todo.put(number)
    workers = [
        threading.Thread(target=_work, args=(tasks, todo, outcomes), name=f"maqet-{number}", daemon=True)
        for number in range(min(threads, len(tasks)))
    ]
    try:
        started = _started(workers)
        if not started:
            _work(tasks, todo, outcomes)
        for worker in started:
            worker.join()
    except BaseException:
        while _next(todo) is not None:
            pass
        raise
    return outcomes


def _started(workers: Sequence[threading.Thread]) -> list[threading.Thread]:
    """Start as many as the system allows: the others' tasks are done by these, or by the caller."""
    started = []
    with suppress(RuntimeError):  # can't start new thread
        for worker in workers:
            worker.start()
            started.append(worker)
    return started


def _work(
    tasks: Sequence[Callable[[], Any]],
    todo: queue.SimpleQueue[int],
    outcomes: list[BaseException | None],
) -> None:
    """One thread: take tasks until there are none left."""
    while (number := _next(todo)) is not None:
        try:
            tasks[number]()
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            outcomes[number] = error


def _next(todo: queue.SimpleQueue[int]) -> int | None:
    try:
        return todo.get_nowait()
    except queue.Empty:
        return None


def _outcome(task: Callable[[], Any]) -> Exception | None:
    """What a task raised; what is no Exception (an interrupt) goes through."""
    try:
        task()
    except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
        return error
    return None


def raise_first(errors: Iterable[BaseException | None]) -> None:
    """Raise the first error there is."""
    for error in errors:
        if error is not None:
            raise error
