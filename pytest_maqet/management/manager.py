"""Which VM, for whom, until when: the VMs of one process of a run.

Knows scopes by name and owner only, so that it can be used, and tested, without pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from pytest_maqet.config import Config, VmConfig
from pytest_maqet.errors import NoRoom
from pytest_maqet.machine import VirtualMachine
from pytest_maqet.management.attempts import Attempts
from pytest_maqet.management.failures import FailureMemory
from pytest_maqet.management.health import left_unusable, one_tests, to_replace
from pytest_maqet.management.host_faults import run_is_there
from pytest_maqet.management.hosts import Hosts
from pytest_maqet.management.launch import Launcher, Listener
from pytest_maqet.management.living import Living
from pytest_maqet.management.managed_machine import HandStarted, ManagedMachine
from pytest_maqet.management.means import Means
from pytest_maqet.management.parallel import at_once, raise_first
from pytest_maqet.management.queueing import queueing, ties_of
from pytest_maqet.management.records import Ledger, Spoiled, StartRecord, merged
from pytest_maqet.management.room import Rooms
from pytest_maqet.management.run_side import RunSide
from pytest_maqet.management.sharing import SharedVms, start_lock_timeout
from pytest_maqet.management.starts import Starts
from pytest_maqet.management.template_making import Templates
from pytest_maqet.management.usage import Usage
from pytest_maqet.management.wishes import Identity, Live, Scope, Wanted, started_by_hand, template_wanted
from pytest_maqet.masking import masked_data
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.settings import Settings, thread_bound
from pytest_maqet.templates.template import Template


class Manager:
    """The VMs of one process.

    `config` is the configuration and `run_dir` the run's private directory. Use `acquire` for VMs that end
    with a scope; `start` and `stop` are for tests that want to do it by hand.
    """

    def __init__(
        self,
        config: Config,
        settings: Settings,
        *,
        worker: str = "main",
        workers: int = 1,
        run_id: str | None = None,
        listener: Listener,
    ) -> None:
        self.config = config
        self.ledger = Ledger(worker)
        self._settings = settings
        self._usage = Usage(worker, lambda: self.test)
        self._launcher = Launcher(listener, self._usage)
        self._threads = thread_bound(workers)
        self._run = RunSide(worker, run_id, config)
        self._attempts = Attempts(FailureMemory(self._run.directory.path / "failures"), self.ledger)
        self._owner: Callable[[], str] = lambda: f"{worker}, {self.test or 'no test'}"
        self._shared = SharedVms(self._run.directory, self._owner, self._lost)
        owner, report = self._owner, listener.progress
        self._rooms = Rooms(
            self.run_dir,
            settings.max_memory,
            owner=owner,
            report=report,
            ties=lambda: ties_of(self.lives, self._run.user_locks),
        )
        self._hosts = Hosts(config, settings, self._run, owner=owner, report=report, monitors=workers + 2)
        self._hosts.queueing = lambda vm, door: queueing(self._rooms.books, owner(), vm, door)
        means = Means(settings, self._launcher, self.ledger, self._hosts.of, self._rooms)
        self._templates = Templates(means, self._run.directory, self._attempts, self._owner)
        self._hosts.freeze = self._templates.of_running
        self._hosts.restore_ready = self._restore_ready
        self._starts = Starts(means, self._templates, self._shared, workers)
        self._living = Living()
        self._failed_ahead: dict[Identity, BaseException] = {}

    @property
    def run_dir(self) -> Path:
        """The run's private directory: sockets, logs and disks of its VMs. It goes with the run."""
        return self._run.directory.path

    @property
    def test(self) -> str:
        """The test that runs now, for locks, records and errors."""
        return self._attempts.test

    def begin(self, test: str, artifacts: Path, *, again: bool) -> None:
        """A test begins; `again` when it is run once more after a failure: failed starts are tried, too."""
        self._attempts.test, self._attempts.again = test, again
        self._hosts.artifacts = artifacts

    @property
    def artifacts(self) -> Path:
        """Where the current test's artifacts go."""
        return self._hosts.artifacts

    # -- by hand -------------------------------------------------------------------------------------------

    def start(self, name: str | Template, **overrides: Any) -> HandStarted:
        """Start one more VM, of its own; `stop` ends it, a `with` block does, and the session's end.

        `name` is a VM's, or a template. Overrides as in the `maqet` marker. Raises ConfigError, StartError
        and whatever a start can raise.
        """
        vm = self.acquire(started_by_hand(self.config, name, overrides)).vm
        assert isinstance(vm, HandStarted)
        return vm

    def take_evidence(self) -> list[tuple[str, str]]:
        """Titles and texts of what VMs that did not become ready had to show, since the last call."""
        taken, self._launcher.evidence = self._launcher.evidence, []
        return taken

    def stop(self, vm: VirtualMachine) -> None:
        """End a VM now, whoever started it. Idempotent."""
        self._drop([live for live in self.lives if live.vm is vm], fails=lambda _live: True)

    def template(
        self,
        name: str | Template,
        prepare: Callable[[VirtualMachine], object] | None = None,
        key: Sequence[object] = (),
        **overrides: Any,
    ) -> Template:
        """A template of a VM, or of another template, that `prepare` has been called with.

        `prepare` is called once for all workers, and once for all runs as long as the VM, its own source and
        `key` (whatever else its work depends on: versions, digests; by their `repr`) stay the same. Overrides
        as in the `maqet` marker. Raises NotSupported for a VM that cannot be frozen, with QEMU's reason.
        """
        wanted = template_wanted(self.config, name, overrides)
        return self._templates.prepared(wanted, self._hosts.of(wanted), prepare, tuple(key))

    def user_lock(self, name: str, timeout: float) -> AbstractContextManager[Any]:
        """A named lock of the suite's own, across all workers of the run; none of ours has its file."""
        return self._run.user_lock(name, timeout * (self._settings.timeout_scale or 1.0), self._owner())

    def stats(self) -> dict[str, Any]:
        """What this process has done so far: counts, and one record per start (see `management.records`)."""
        return dict(masked_data(merged([self.ledger.export()])))

    # -- for scopes ----------------------------------------------------------------------------------------

    def acquire(self, wanted: Wanted) -> Live:
        """The VM that is wanted: the one that lives in its scope already, else a new one.

        Raises what its start raises; a start that failed before in this run fails at once with that cause.
        """
        with run_is_there(self.run_dir):
            ahead = self._failed_ahead.pop(wanted.identity, None)
            if ahead is not None:
                raise ahead
            live = self.find(wanted) or self._start(wanted)
            self.use(live)
            return live

    def use(self, live: Live) -> None:
        """The current test uses this VM, which is replaced first when it was left unusable."""
        live.begin_use(self._usage)
        if live.spoiled:
            self._replace(live)
        live.last_test = self.test

    def acquire_ahead(self, several: Sequence[Wanted]) -> None:
        """Start all that are wanted at once; a failure is kept for the `acquire` that asks for that VM."""
        missing = {wanted.identity: wanted for wanted in several if self.find(wanted) is None}
        if len(missing) < 2:
            return  # nothing to gain over its own acquire
        before = set(map(id, self.lives))
        try:
            room = self._rooms.together([one for one in missing.values() if self._starts.needs_room(one)])
            with run_is_there(self.run_dir), room:
                outcomes = at_once([partial(self._start, one) for one in missing.values()], self._threads)
        except NoRoom as refused:
            outcomes = [refused] * len(missing)
        except BaseException:
            self._launcher.abandon()
            self._drop([live for live in self.lives if id(live) not in before])
            raise
        for identity, error in zip(missing, outcomes, strict=True):
            if error is not None:
                self._failed_ahead[identity] = error

    @property
    def spares(self) -> int:
        """For how many tests ahead it is worth asking `want_next`."""
        return self._starts.pool.most

    def want_next(self, several: Sequence[Wanted]) -> None:
        """What the next tests are going to ask for, in order: spares are made ready while this one runs."""
        self._starts.pool.want(
            wanted for wanted in several if wanted.scope.kind == "function" and self.find(wanted) is None
        )

    def find(self, wanted: Wanted) -> Live | None:
        """The living VM that answers this wish."""
        return self._living.find(wanted)

    @property
    def lives(self) -> tuple[Live, ...]:
        """All VMs that were not ended, in the order of their starts."""
        return self._living.all()

    def end_scope(self, scope: Scope) -> None:
        """End all VMs of a scope, at once. Idempotent; one that cannot be ended does not keep the others."""
        self._failed_ahead = {key: error for key, error in self._failed_ahead.items() if key[0] != scope}
        if scope.kind == "run":  # other workers go on with it
            self.inspect(lambda live: live.scope == scope and live.last_test == self.test)
        self._drop([live for live in self.lives if live.scope == scope])

    def hurry(self) -> None:
        """From now on VMs end at once, also those of `teardown: stop`: the run was interrupted."""
        self._run.in_haste = True

    def close(self) -> None:
        """End everything that is left and give up the run; idempotent."""
        self._starts.pool.close()
        self._drop(list(self.lives), fails=lambda _live: False)
        self._run.close()
        for line in self._run.crashes:
            self.ledger.note(line)

    # -- health --------------------------------------------------------------------------------------------

    def inspect(self, used: Callable[[Live], bool]) -> list[Spoiled]:
        """Look at the VMs that outlive the test which used them; those left unusable are noted."""
        found = left_unusable(self.lives, used, self._usage)
        self.ledger.spoiled.extend(found)
        return found

    def _lost(self, config: VmConfig, directory: VmDirectory, reason: str) -> None:
        """A `run`-scoped VM must be replaced, whoever has left it like that."""
        self.ledger.spoiled.extend(self._usage.culprits(config.name, directory, reason))

    def replace_spoiled(self, needed: Callable[[Live], bool]) -> None:
        """Put fresh QEMUs behind the handles of unusable VMs, where `needed` says so."""
        spoiled = to_replace(self.lives, needed, self._usage, self.test)
        raise_first(at_once([partial(self._replace, live) for live in spoiled], self._threads))

    # -- starts and ends -----------------------------------------------------------------------------------

    def _start(self, wanted: Wanted) -> Live:
        """Start or join one VM, keep the books, and register it."""
        with self._attempts.one(wanted) as record:
            vm = self._starts.obtain(wanted, self._hosts.of(wanted), record)
        live = Live(vm, wanted, last_test=self.test)
        self._living.add(live)
        return live

    def _replace(self, live: Live) -> None:
        with self._attempts.one(live.wanted) as record:
            record.replaced = True
            relaunch = partial(self._relaunch, live, record)
            if live.config.scope == "run":
                timeout = start_lock_timeout(live.config, live.vm.host)
                self._shared.replace(live.config, live.vm, live.spoiled or "", record, timeout, relaunch)
            else:
                relaunch()
        live.spoiled = None
        self._usage.begin(live.config.name, live.vm.life.directory)

    def _relaunch(self, live: Live, record: StartRecord) -> None:
        way = self._starts.way_for(live.wanted, live.vm.host)
        record.how, record.reason = way.how, way.reason
        self._launcher.relaunch(way, live.vm)

    def _restore_ready(self, vm: VirtualMachine, wanted: Wanted) -> None:
        assert isinstance(vm, ManagedMachine)
        self._launcher.relaunch(self._starts.ready_again(vm, wanted), vm)
        if wanted.config.scope == "run" and wanted.shared:
            self._shared.publish(vm.config, vm)

    def _drop(self, ending: Sequence[Live], *, fails: Callable[[Live], bool] = one_tests) -> None:
        """Take VMs off the books and end them, at once.

        A QEMU that crashed unseen raises QemuDied where its VM `fails`; else it is told in the summary.
        """
        self._living.remove(ending)
        outcomes = at_once([live.vm.close for live in ending], self._threads)
        told = self._launcher.crashes.take({id(live.vm) for live in ending if fails(live)}, self.ledger)
        for crash in told:
            self._launcher.evidence.extend(crash.sections)
        raise_first([*outcomes, *(crash.error for crash in told)])
