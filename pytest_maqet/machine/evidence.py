"""What a failed test is shown of a VM, and what is kept of it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_maqet.errors import MaqetError
from pytest_maqet.masking import MASKS, masked
from pytest_maqet.qemu.events import Event
from pytest_maqet.runs.bounded_log import pieces
from pytest_maqet.storage.report import storage_info as report_storage
from pytest_maqet.visible_text import visible
from pytest_maqet.waiting.standstill import is_stopped
from pytest_maqet.waiting.vitals import Vitals

if TYPE_CHECKING:
    from pytest_maqet.machine.core import MachineCore

#: How much of the console and of QEMU's events a report shows.
CONSOLE_LINES = 40
EVENTS = 30
#: A screenshot is a courtesy: it may take this long, in seconds.
SCREENSHOT_TIME = 5.0


def report_sections(vm: MachineCore) -> list[tuple[str, str]]:
    """Title and text of each section, in the order to read them."""
    name = vm.config.name
    vitals = vm.life.vitals

    def collect() -> list[tuple[str, str]]:
        sections = [
            (f"console of {name}" if key == next(iter(vitals.consoles)) else f"console {key} of {name}", tail)
            for key, log in vitals.consoles.items()
            if (tail := log.tail(CONSOLE_LINES))
        ]
        events = "\n".join(_event_line(event.message) for event in _told(vitals)[-EVENTS:])
        if events:
            sections.append((f"QMP events of {name}", events))
        if said := vitals.stderr_tail():
            sections.append((f"QEMU's stderr of {name}", said))
        return sections

    sections = vm.call_on_loop(collect)
    ended = f"\nQEMU: {vitals.exit.reason}" if vitals.exit is not None else ""
    facts = vm.life.facts
    sections.append(
        (f"QEMU command line of {name} ({facts.started_by}, {facts.accelerator})", facts.command_line + ended)
    )
    return [(title, visible(masked(text))) for title, text in sections]


def save(vm: MachineCore, folder: Path) -> list[Path]:
    """Write everything there is about the VM into `folder`, secrets masked, and return the files.

    What can be kept is kept; then the first OSError is raised, where there was one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    directory = vm.life.directory
    name = vm.config.name
    if _taken(folder / f"{name}-command-line.txt", vm):
        name = directory.path.name
    saved: list[Path] = []
    sources = [(f"{name}-stderr.log", directory.stderr_log)]
    sources += [(f"{name}-console-{key}.log", log.path) for key, log in vm.life.vitals.consoles.items()]
    faults: list[OSError] = []
    for target, source in sources:
        try:
            if source.stat().st_size:
                MASKS.copy(pieces(source), folder / target)
                saved.append(folder / target)
        except FileNotFoundError:
            continue
        except OSError as error:
            faults.append(error)
    events = vm.call_on_loop(lambda: vm.life.vitals.mailbox.since(0))
    texts = {
        f"{name}-events.jsonl": "".join(json.dumps(dict(event.message)) + "\n" for event in events),
        f"{name}-command-line.txt": vm.life.facts.command_line + "\n",
    }
    for target, text in texts.items():
        try:
            if text:
                (folder / target).write_text(masked(text))
                saved.append(folder / target)
        except OSError as error:
            faults.append(error)
    saved += _screenshot(vm, folder / f"{name}-screen.png")
    if faults:
        raise faults[0]
    return saved


def storage_info(vm: MachineCore) -> list[dict[str, Any]]:
    """See `VirtualMachine.storage_info`."""
    return report_storage(vm.life.drives)


def _taken(command_line: Path, vm: MachineCore) -> bool:
    """Whether another VM of that name saved its own there; one saves twice when its teardown fails too."""
    return command_line.exists() and f"{vm.life.directory.path}/" not in command_line.read_text()


def _screenshot(vm: MachineCore, target: Path) -> list[Path]:
    if vm.life.vitals.exit is not None or is_stopped(vm.life.vitals) or not vm.life.facts.has_display:
        return []
    deadline = vm.deadline(SCREENSHOT_TIME, SCREENSHOT_TIME)
    arguments = {"filename": str(target.absolute()), "format": "png"}
    with suppress(MaqetError, TimeoutError):
        vm.on_loop(vm.life.execute("screendump", arguments, deadline))
    return [target] if target.exists() else []


def _told(vitals: Vitals) -> list[Event]:
    """Events that say something of the guest; how a clone was loaded does not."""
    return [event for event in vitals.mailbox.since(0) if event.name != "MIGRATION"]


def _event_line(message: Any) -> str:
    stamp = message.get("timestamp", {})
    seconds = stamp.get("seconds", 0) + stamp.get("microseconds", 0) / 1e6
    data = f" {json.dumps(message['data'])}" if message.get("data") else ""
    return f"{seconds:.3f} {message['event']}{data}"
