"""What the chaos runner does, as values: a seed and a number give a round, always the same one."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: What a fault may hit. "controller" is the pytest that was started; "session" all of its processes as Ctrl-C
#: reaches them; "owners" controller and workers together. The "maker-" ones are those that just make
#: a template.
TARGETS = (
    "controller",
    "session",
    "owners",
    "worker",
    "nursery",
    "keeper",
    "qemu",
    "maker-worker",
    "maker-keeper",
    "maker-qemu",
)
#: Targets after which the run is over.
ENDING = ("controller", "session", "owners")
#: What a fault may wait for.
EVENTS = ("draft", "state", "exit", "sweep")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGSTOP")


@dataclass(frozen=True)
class Moment:
    """When a fault comes.

    `event` is "time" (`value` is a part of the run's usual duration), "next" (seconds after the last fault),
    or something to wait for, with seconds after it: "draft" (a template is being made), "state" (one is being
    frozen), "exit" (a VM has just ended: teardown), "sweep" (a dead run is being removed).
    """

    event: str
    value: float

    def __str__(self) -> str:
        return f"{self.value:.0%} of the run" if self.event == "time" else f"{self.event} +{self.value:.2f} s"


@dataclass(frozen=True)
class Fault:
    """One signal to one process; after SIGSTOP comes `then` ("cont", "kill", or "stay") in `pause` seconds.

    `pick` chooses among several processes of the kind.
    """

    moment: Moment
    target: str
    signal: str
    pick: float = 0.0
    then: str = ""
    pause: float = 0.0

    def __str__(self) -> str:
        then = f", {self.then} after {self.pause:.1f} s" if self.then else ""
        return f"{self.signal} to {self.target} at {self.moment}{then}"


@dataclass(frozen=True)
class Round:
    """One pytest run and the faults in it.

    `workers` 0 or 2; `tests` are files of the suite; `cold` removes the kept templates first; `dead_run` has
    the run begin with a dead run to be swept, a big one.
    """

    seed: int
    number: int
    workers: int
    tests: tuple[str, ...]
    cold: bool
    dead_run: bool
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return (
            f"seed {self.seed} round {self.number}: -n{self.workers} {' '.join(self.tests)}"
            f"{' without templates' if self.cold else ''}{' with a dead run' if self.dead_run else ''}"
        )


def plan(seed: int, number: int, *, linux: bool) -> Round:
    """The round of that number; with `linux`, some use builtin:linux, too."""
    dice = random.Random(f"{seed}/{number}")
    workers = dice.choice((0, 2))
    tests = ("machines.py", "guests.py") if dice.random() < 0.3 and linux else ("machines.py",)
    cold = dice.random() < 0.4
    dead_run = dice.random() < 0.08
    if dead_run:  # whoever sweeps is hit at it; afterwards the run is over
        signal = dice.choice(("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT"))
        faults = [Fault(Moment("sweep", dice.uniform(0, 0.05)), "controller", signal)]
    else:
        faults = _faults(dice, dice.choice((1, 4, 8, 12)), 0.4, workers=workers, cold=cold)
    return Round(seed, number, workers, tests, cold, dead_run, tuple(faults))


def dense_plan(seed: int, number: int, workers: int, *, cold: bool) -> Round:
    """A round of builtin:nano with ten faults one upon the other, the last of which ends the run."""
    dice = random.Random(f"{seed}/{number}/dense")
    faults = _faults(dice, 10, 0.25, workers=workers, cold=cold)
    last = Fault(faults[-1].moment, dice.choice(ENDING[: 3 if workers else 1]), dice.choice(SIGNALS[:3]))
    return Round(seed, number, workers, ("machines.py",), cold, False, (*faults[:-1], last))


def _faults(dice: random.Random, several: int, gap: float, *, workers: int, cold: bool) -> list[Fault]:
    """That many faults, at most `gap` seconds apart; one that ends the run can only be the last."""
    made: list[Fault] = []
    for place in range(several):
        moment = Moment("next", dice.uniform(0, gap)) if place else _first_moment(dice, several, cold=cold)
        making = cold and place < 2 and moment.event != "exit"
        made.append(_fault(dice, moment, workers=workers, making=making, more=place + 1 < several))
    return made


def _first_moment(dice: random.Random, several: int, *, cold: bool) -> Moment:
    kinds = ("time", "time", "draft", "state") if cold else ("time", "time", "time", "exit", "draft")
    kind = dice.choice(kinds)
    if kind == "time":
        return Moment("time", dice.uniform(0, 1.02 / several**0.5))
    return Moment(kind, dice.uniform(0, {"draft": 0.5, "state": 0.05, "exit": 0.05}[kind]))


def _fault(dice: random.Random, moment: Moment, *, workers: int, making: bool, more: bool) -> Fault:
    kinds = ["keeper", "keeper", "qemu", "qemu", "nursery"]
    if not more:
        kinds += ["controller", "controller", "session"]
    if workers:
        kinds += ["worker", "worker"] if more else ["owners", "worker"]
    if making:
        kinds += ["maker-worker", "maker-keeper", "maker-qemu"] if workers else ["maker-keeper", "maker-qemu"]
        kinds += ["maker-worker"] if not more else []
    target = dice.choice(kinds)
    signal = "SIGINT" if target == "session" else dice.choice(("SIGKILL", *SIGNALS))
    if signal != "SIGSTOP":
        return Fault(moment, target, signal, dice.random())
    # What owns VMs does not end by itself when it is stopped: the runner continues or kills it.
    own = target in ("nursery", "keeper", "qemu", "maker-keeper", "maker-qemu")
    then = dice.choice(("cont", "kill", "stay") if own and not more else ("cont", "kill"))
    return Fault(moment, target, signal, dice.random(), then, dice.uniform(0.1, 0.9))
