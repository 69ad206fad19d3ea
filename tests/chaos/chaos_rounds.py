"""One round: a run of the victim suite, the faults that hit it, and what must hold afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import chaos_checks
from chaos_home import Home, there
from chaos_plans import ENDING, EVENTS, Fault, Moment, Round
from chaos_processes import (
    Family,
    Process,
    alive,
    drafts_in,
    end_all,
    gone_after,
    marked,
    send,
)

#: Usual seconds of a run until one was measured, and how much longer it takes where templates are made.
USUAL = 7.0
MAKING = 3.0
#: How often a moment is looked for, in seconds.
_LOOK = 0.004


@dataclass(frozen=True)
class Limits:
    """Seconds until everything must be gone: after the end of a run; of one whose workers outlive it.

    Workers whose controller is gone go on for 5 seconds, are then interrupted, and ended by force 10 seconds
    later (`WorkerGateway.serve` of execnet): 5 to 6 seconds where tear-down is quick, 18 at most.
    """

    gone: float = 3.0
    orphans: float = 18.0
    #: A run that takes longer hangs; a stopped process costs each wait its time-out.
    hanging: float = 120.0


@dataclass
class Delivered:
    """A fault that hit somebody, and the longest time until what it should end was gone."""

    fault: Fault
    victim: str
    seconds: float
    clean: float = 0.0

    def __str__(self) -> str:
        return f"{self.fault} -> {self.victim} at {self.seconds:.2f} s: clean in {self.clean:.2f} s"


@dataclass
class Outcome:
    """What a round came to."""

    round: Round
    delivered: list[Delivered] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    status: int = 0
    seconds: float = 0.0
    failed: int = 0
    passed: int = 0


class Runner:
    """Carries out rounds in one home, one after the other."""

    def __init__(self, home: Home, limits: Limits) -> None:
        self.home = home
        self.limits = limits
        self._usual: dict[tuple[int, tuple[str, ...]], float] = {}

    def clean_run(self, like: Round) -> Outcome:
        """A run that nothing hits: it passes, and nothing is left."""
        outcome = self._run(like, ())
        if outcome.status != 0:
            outcome.complaints.append(f"a run without faults ended with {outcome.status}: {self._said()}")
        outcome.complaints += chaos_checks.left_files(self.home)
        self._usual[like.workers, like.tests] = outcome.seconds
        return outcome

    def usual(self, wanted: Round) -> float:
        """The seconds that such a run usually takes."""
        usual = self._usual.get((wanted.workers, wanted.tests), USUAL)
        return usual + MAKING * len(wanted.tests) if wanted.cold else usual

    def faulty_run(self, wanted: Round) -> Outcome:
        """A run with the round's faults."""
        if wanted.cold:
            self.home.forget_templates()
        if wanted.dead_run:
            self.home.plant_dead_run()
        return self._run(wanted, wanted.faults)

    def _run(self, wanted: Round, faults: tuple[Fault, ...]) -> Outcome:
        before = {event: _traces(self.home, event) for event in EVENTS}
        process, mark = started = self.home.start(wanted)
        hit = _Hit(self.home, started, self.limits, self.usual(wanted), before)
        try:
            for fault in faults:
                hit.deliver(fault)
            outcome = Outcome(wanted, hit.delivered, hit.complaints)
            self._await_end(process, mark, outcome)
            outcome.seconds = hit.now()
            self._judge(hit, outcome)
            return outcome
        finally:
            end_all(mark)
            process.wait()

    def _await_end(self, process: subprocess.Popen[bytes], mark: str, outcome: Outcome) -> None:
        try:
            outcome.status = process.wait(self.limits.hanging)
        except subprocess.TimeoutExpired:
            for one in marked(mark):  # pytest's faulthandler then says where it hangs
                if not one.is_qemu and not one.of_runs:
                    send(one, signal.SIGABRT)
            time.sleep(1)
            outcome.complaints.append(f"hangs: {self._said(6000)}")
            process.kill()
            outcome.status = process.wait()

    def _judge(self, hit: _Hit, outcome: Outcome) -> None:
        ended_early = any(one.fault.target in ENDING for one in outcome.delivered)
        orphans = ended_early and outcome.round.workers > 0
        patience = self.limits.orphans if orphans else self.limits.gone
        seconds, left = chaos_checks.left_processes(hit.mark, patience)
        outcome.complaints += left
        if left:
            end_all(hit.mark)
        for delivered in outcome.delivered[-1:]:
            delivered.clean = max(delivered.clean, seconds)
        roots = (self.home.runs, self.home.path / "cache" / "templates")
        outcome.complaints += chaos_checks.held_locks(*roots, patience=self.limits.gone)
        if not left:  # else their keepers were ended just now, by us
            outcome.complaints += chaos_checks.volatile_files(self.home, hit.lost_keepers)
        outcome.complaints += self._judged_end(outcome, hit)
        outcome.complaints += self._judged_results(outcome, hit)

    def _judged_results(self, outcome: Outcome, hit: _Hit) -> list[str]:
        """Nothing fails before the first fault, and a crash of a worker is told with its VMs."""
        complaints = []
        for line in self.home.notes.read_text().splitlines() if self.home.notes.exists() else ():
            said = json.loads(line)
            if said["outcome"] == "failed":
                outcome.failed += 1
                if said["time"] < hit.first:
                    complaints.append(f"failed before any fault: {said['test']}: {said.get('text')}")
            outcome.passed += said["outcome"] == "passed" and said["when"] == "call"
        output = self.home.output.read_text(errors="replace")
        interrupted = any(one.fault.signal == "SIGINT" for one in outcome.delivered)
        # xdist has internal errors of its own, for a worker that is killed before it has said a word.
        if "INTERNALERROR" in output and "/pytest_maqet/" in output and not interrupted:
            complaints.append(f"internal error: {output[-3000:]}")
        for test in hit.crashed_tests:
            if f"crashed while running '{test}'" in output and "- QEMU of " not in output:
                complaints.append(f"the crash in {test} is told without its VMs: {output[-3000:]}")
        return complaints

    def _judged_end(self, outcome: Outcome, hit: _Hit) -> list[str]:
        """Whether the exit status is one that the faults explain."""
        allowed = {0, 1} if outcome.delivered else {0}
        for one in outcome.delivered:
            if one.fault.signal == "SIGINT":
                # Interrupted: 2; before pytest could say so, the interpreter's own. 3 where the interrupt
                # came between two phases of a worker's test: xdist has no better word for that.
                allowed |= {2, 3, 130, -signal.SIGINT}
            if hit.is_controller(one.victim):
                allowed |= {-getattr(signal, one.fault.signal), -signal.SIGKILL}
        if outcome.status in allowed:
            return []
        return [f"exit status {outcome.status}, not one of {sorted(allowed)}: {self._said(6000)}"]

    def _said(self, size: int = 3000) -> str:
        return self.home.output.read_text(errors="replace")[-size:]


class _Hit:
    """Faults against one run, as they come."""

    def __init__(
        self,
        home: Home,
        started: tuple[subprocess.Popen[bytes], str],
        limits: Limits,
        usual: float,
        traces_before: dict[str, set[Path]],
    ) -> None:
        process, mark = started
        self.home = home
        self.mark = mark
        #: When the first fault came, as the suite's notes tell the time.
        self.first = float("inf")
        self.delivered: list[Delivered] = []
        self.complaints: list[str] = []
        self.lost_keepers: set[str] = set()
        self.crashed_tests: set[str] = set()
        self._traces_before = traces_before
        self._process = process
        self._limits = limits
        self._usual = usual
        self._began = self._last = time.monotonic()

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def is_controller(self, victim: str) -> bool:
        """Whether the pytest that was started was among the victims."""
        return str(self._process.pid) in victim.split()

    def deliver(self, fault: Fault) -> None:
        """Wait for the fault's moment and for somebody it can hit; nothing when the run ends before."""
        victims: list[Process] = []
        self._await_moment(fault.moment)
        while not victims and self._process.poll() is None:
            family = Family(self.mark, self._process.pid)
            groups = family.of(fault.target, self.home.stores())
            if groups:
                victims = groups[int(fault.pick * len(groups))]
                self._strike(fault, victims, family)
            time.sleep(_LOOK)
        self._last = time.monotonic()

    def _strike(self, fault: Fault, victims: list[Process], family: Family) -> None:
        number = getattr(signal, fault.signal)
        seconds, moment = self.now(), time.time()
        struck = [victim for victim in victims if send(victim, number)]
        if not struck:
            return
        self.first = min(self.first, moment)
        delivered = Delivered(fault, " ".join(str(one.pid) for one in struck), seconds)
        self.delivered.append(delivered)
        if fault.signal == "SIGSTOP":
            self._after_stop(fault, struck)
        if fault.signal in ("SIGKILL", "SIGTERM") or fault.then == "kill":
            for victim in struck:
                delivered.clean = max(delivered.clean, self._await_family(victim, family))

    def _after_stop(self, fault: Fault, struck: list[Process]) -> None:
        if fault.then == "stay":
            return
        end = time.monotonic() + fault.pause
        while time.monotonic() < end and any(alive(one) for one in struck):
            time.sleep(_LOOK)
        for victim in struck:
            send(victim, signal.SIGKILL if fault.then == "kill" else signal.SIGCONT)

    def _await_family(self, victim: Process, family: Family) -> float:
        """What must go with a process that was ended goes, while the run goes on."""
        lost = [victim]
        if victim in family.keepers:
            qemus = [one for one in family.qemus if one.parent == victim.pid]
            self.lost_keepers |= {_vm_of(one) for one in qemus}
            lost += qemus
        elif not victim.of_runs and not victim.is_qemu:
            lost += family.vms_of(victim)
            self._note_crash(family, victim)
        seconds = gone_after(lost, self._limits.gone)
        if seconds is None:
            left = [str(one) for one in lost if alive(one)]
            self.complaints.append(f"{victim} was ended, and after {self._limits.gone:g} s lives: {left}")
            return self._limits.gone
        return seconds

    def _note_crash(self, family: Family, victim: Process) -> None:
        """The tests that had a running VM when their worker was ended."""
        if victim not in family.workers():
            return
        for qemu in family.vms_of(victim):
            if qemu.is_qemu:
                for note in there(Path(_vm_of(qemu)), "user-*"):
                    found = re.search(r'"test": "([^"]+)"', note.read_text())
                    if found:
                        self.crashed_tests.add(found[1])

    def _await_moment(self, moment: Moment) -> None:
        if moment.event == "time":
            self._sleep_until(self._began + moment.value * self._usual)
            return
        if moment.event != "next":
            while self._process.poll() is None and not self._came(moment.event):
                time.sleep(_LOOK)
            self._last = time.monotonic()
        self._sleep_until(self._last + moment.value)

    def _came(self, event: str) -> bool:
        """Whether there is something that was not there when the run began: dead runs leave such things."""
        return bool(_traces(self.home, event) - self._traces_before[event])

    def _sleep_until(self, end: float) -> None:
        while self._process.poll() is None and time.monotonic() < end:
            time.sleep(min(_LOOK, max(0.0, end - time.monotonic())))


def _traces(home: Home, event: str) -> set[Path]:
    """The files that tell of an event which a fault may wait for."""
    if event == "exit":
        return there(home.runs, "*/*/exit")
    if event == "sweep":
        return there(home.runs, ".maqet-dead-*")
    drafts = {draft for store in home.stores() for draft in drafts_in(store)}
    return drafts if event == "draft" else {draft for draft in drafts if (draft / "machine.state").exists()}


def _vm_of(qemu: Process) -> str:
    """The directory of a QEMU's VM."""
    return os.path.dirname(qemu.argv[qemu.argv.index("-pidfile") + 1])  # noqa: PTH120 - a string in, a string out
