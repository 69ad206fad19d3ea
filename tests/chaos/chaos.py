"""Hits runs of a suite with signals at random moments, and looks whether anything is left behind.

    python tests/chaos/chaos.py                                  500 faults; half an hour
    python tests/chaos/chaos.py --seed 7 --faults 40             other ones, fewer
    python tests/chaos/chaos.py --seed 7 --faults 1 --only 12    round 12 of seed 7 again

Prints a line for each fault and the figures at the end, as a table for docs/reliability.md. Exit status 1
when something did not hold.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from chaos_figures import Figures
from chaos_home import Home
from chaos_plans import Round, plan
from chaos_rounds import Limits, Outcome, Runner


def main() -> int:
    """Run rounds until enough faults were delivered."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=500, help="how many must be delivered")
    parser.add_argument("--only", type=int, metavar="ROUND", help="this round and no other")
    parser.add_argument("--minutes", type=float, default=120, help="begin no round after that")
    parser.add_argument("--no-linux", action="store_true", help="builtin:nano only")
    parser.add_argument(
        "--verify-every",
        type=int,
        default=1,
        metavar="N",
        help="a run without faults after each N rounds; in between the next victim is the next run",
    )
    parser.add_argument(
        "--keep-home", action="store_true", help="leave the files of a failure, and stop there"
    )
    wanted = parser.parse_args()
    home = Home()
    figures = Figures()
    runner = Runner(home, Limits())
    end = time.monotonic() + 60 * wanted.minutes
    number = wanted.only or 0
    try:
        while figures.faults < wanted.faults and time.monotonic() < end:
            verify = wanted.only is not None or number % wanted.verify_every == 0
            chosen = plan(wanted.seed, number, linux=not wanted.no_linux)
            good = one_round(runner, chosen, figures, verify=verify)
            if not good and wanted.keep_home:
                print(f"see {home.path}")
                os._exit(1)  # the home stays
            if wanted.only is not None:
                break
            number += 1
    except KeyboardInterrupt:
        print("interrupted; so far:")
    finally:
        home.remove()
    print(figures.table())
    return 1 if figures.complaints else 0


def one_round(runner: Runner, wanted: Round, figures: Figures, *, verify: bool) -> bool:
    """A round, and with `verify` a run without faults after it: whether all held."""
    outcome = runner.faulty_run(wanted)
    report(outcome, figures, "")
    if not verify:
        return not outcome.complaints
    after = runner.clean_run(plain(wanted))
    report(after, figures, "the next run")
    return not outcome.complaints and not after.complaints


def plain(wanted: Round) -> Round:
    """The same kind of run, with the templates that are there."""
    return Round(
        wanted.seed, wanted.number, wanted.workers, wanted.tests, cold=False, dead_run=False, faults=()
    )


def report(outcome: Outcome, figures: Figures, what: str) -> None:
    """One line for each fault, and what did not hold."""
    figures.add(outcome)
    for delivered in outcome.delivered:
        print(f"{outcome.round}: {delivered}", flush=True)
    if outcome.complaints or not what:
        said = f"ended with {outcome.status} after {outcome.seconds:.1f} s, {outcome.failed} failed"
        print(f"{outcome.round}: {what or 'the run'} {said}", flush=True)
    for complaint in outcome.complaints:
        print(f"  VIOLATION: {complaint}", flush=True)
    if outcome.complaints:
        again = f"--seed {outcome.round.seed} --faults 1 --only {outcome.round.number}"
        print(f"  again: python tests/chaos/chaos.py {again}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
