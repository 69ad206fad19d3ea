"""The fixtures: which VM each gives, how long it lives, and that users may put their own in between."""

from __future__ import annotations


def test_a_fixture_for_each_vm_gives_it_started_and_ready(suite):
    suite.tests(
        """
        def test_it(nano):
            assert nano.name == "nano"
            assert nano.status == "running"
            assert nano.qmp.execute("query-status")["status"] == "running"
        """
    )
    suite.run("-W", "error", "--strict-markers").assert_outcomes(passed=1)
    assert suite.left_over() == []


def test_each_test_has_its_own_vm_and_shares_that_of_a_wider_scope(suite):
    suite.tests(
        """
        seen = []

        def test_first(vm, nano, store):
            assert vm is nano, "`vm` is the fixture of the default VM"
            seen.extend([nano.pid, store.pid])

        def test_second(vm, store):
            assert vm.pid != seen[0], "each test has its own"
            assert store.pid == seen[1], "session scope: one VM"
        """
    )
    suite.run().assert_outcomes(passed=2)
    assert suite.left_over() == []


def test_an_override_in_conftest_is_seen_by_vm_and_vms(suite):
    suite.conftest(
        """
        import pytest

        @pytest.fixture
        def nano(nano):
            nano.mine = True
            return nano
        """
    )
    suite.tests(
        """
        import pytest

        def test_vm(vm): assert vm.mine
        def test_vms(vms): assert vms["nano"].mine
        @pytest.mark.maqet("nano", memory="24M")
        def test_changed(vm): assert not hasattr(vm, "mine"), "another configuration: not the fixture's VM"
        """
    )
    suite.run().assert_outcomes(passed=3)


def test_an_override_that_starts_nothing_starts_nothing(suite):
    suite.conftest(
        """
        import pytest

        @pytest.fixture
        def nano(): return "mine"
        """
    )
    suite.tests(
        """
        def test_it(vm, nano, store, maqet):
            assert vm == nano == "mine"
            assert [record["vm"] for record in maqet.stats()["starts"]] == ["store"]
        """
    )
    suite.run().assert_outcomes(passed=1)


def test_indirect_parameters_of_vm(suite):
    suite.tests(
        """
        import pytest

        SKIPPED = pytest.param("nano", marks=pytest.mark.skip)

        @pytest.mark.parametrize("vm", ["store", {"memory": "24M"}, SKIPPED], indirect=True)
        def test_it(vm, request):
            wanted = {"store": ("store", 16), "vm1": ("nano", 24)}
            assert (vm.name, vm.config.memory >> 20) == wanted[request.node.callspec.id]

        @pytest.mark.parametrize("vm", [3], indirect=True)
        def test_wrong(vm): pass

        @pytest.mark.parametrize("vm", [3])
        def test_shadowed(vm): assert vm == 3
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=3, skipped=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*an indirect parameter of `vm` is a VM's name, a template or a dict of overrides, got 3*"]
    )


def test_scoped_vm_fixtures_read_the_marker_of_their_own_level(suite):
    suite.file("pkg/__init__.py", "import pytest\npytestmark = pytest.mark.maqet('store', memory='40M')\n")
    suite.file(
        "pkg/test_one.py",
        """
        import pytest
        pytestmark = pytest.mark.maqet(memory="24M")
        seen = {}

        @pytest.mark.maqet(memory="32M")
        class TestIt:
            def test_first(self, class_vm, module_vm, package_vm, session_vm):
                assert class_vm.config.memory >> 20 == 32
                assert module_vm.config.memory >> 20 == 24
                assert package_vm.config.memory >> 20 == 40
                assert session_vm.config.memory >> 20 == 16
                seen.update(klass=class_vm.pid, module=module_vm.pid, package=package_vm.pid)

            def test_second(self, class_vm, module_vm, package_vm):
                assert [class_vm.pid, module_vm.pid, package_vm.pid] == list(seen.values())

        def test_after_the_class(module_vm):
            assert module_vm.pid == seen["module"]
        """,
    )
    suite.file(
        "pkg/test_two.py",
        """
        from pkg.test_one import seen

        def test_it(module_vm, package_vm):
            assert module_vm.pid != seen["module"], "another module"
            assert package_vm.pid == seen["package"], "the same package"
        """,
    )
    suite.run("pkg").assert_outcomes(passed=4)
    assert suite.left_over() == []


def test_package_scope_is_one_vm_for_each_package(suite):
    suite.yaml("vms: {nano: {image: builtin:nano, memory: 16M, scope: package}}")
    for package in ("one", "two"):
        suite.file(f"{package}/__init__.py", "")
        for module in ("a", "b"):
            suite.file(f"{package}/test_{module}.py", "def test_it(nano): print('PID', nano.pid)\n")
    result = suite.run("-s")
    result.assert_outcomes(passed=4)
    pids = [line.split()[-1] for line in result.outlines if "PID" in line]
    assert pids[0] == pids[1] != pids[2] == pids[3], f"one VM for each package, got {pids}"


def test_vms_starts_on_access_only_and_several_at_once(suite):
    suite.tests(
        """
        import pytest

        def test_it(vms, maqet):
            assert list(vms) == ["nano", "store"] and len(vms) == 2 and "nano" in vms
            assert maqet.stats()["starts"] == []
            nano, store = vms.start("nano", "store")
            assert vms["store"] is store and vms["nano"] is nano
            with pytest.raises(Exception, match="no such VM.*\\\\n?.*did you mean 'nano'"):
                vms["nan"]
        """
    )
    suite.run().assert_outcomes(passed=1)


def test_a_factory_starts_one_more_each_time_and_ends_it_with_its_scope(suite):
    suite.tests(
        """
        import os

        pids = []

        def test_function(vm_factory, vm):
            one, two = vm_factory("nano", memory="24M"), vm_factory()
            assert len({one.pid, two.pid, vm.pid}) == 3
            assert one.config.memory == 24 << 20
            pids.extend([one.pid, two.pid])

        def test_they_are_gone(session_vm_factory):
            assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
            pids[:] = [session_vm_factory("nano").pid]

        def test_it_lives(): assert os.path.exists(f"/proc/{pids[0]}")
        """
    )
    suite.run().assert_outcomes(passed=3)
    assert suite.left_over() == []


def test_the_manager_starts_and_stops_by_hand(suite):
    suite.tests(
        """
        import os
        import pytest

        def test_it(maqet):
            with maqet.start("nano", memory="24M") as vm:
                pid = vm.pid
                assert vm.status == "running"
            assert not os.path.exists(f"/proc/{pid}")
            other = maqet.start("nano")
            maqet.stop(other)
            maqet.stop(other)
            assert maqet.config.vms["nano"].memory == 16 << 20
            assert maqet.run_dir.is_dir()
            assert maqet.stats()["clones"] == 2
            maqet.start("nano")
        """
    )
    suite.run().assert_outcomes(passed=1)
    assert suite.left_over() == [], "a VM started by hand ends with the session"


def test_values_from_fixtures(suite):
    suite.yaml("vms: {nano: {image: builtin:nano, memory: {fixture: how_much}}}")
    suite.conftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def how_much(): return "24M"
        """
    )
    suite.tests(
        """
        import pytest

        def test_named(nano): assert nano.config.memory == 24 << 20
        def test_vm(vm): assert vm.config.memory == 24 << 20
        @pytest.mark.maqet(**{"cpu.count": 2})
        def test_changed(vm): assert (vm.config.memory, vm.config.cpu.count) == (24 << 20, 2)
        def test_factory(vm_factory): assert vm_factory("nano").config.memory == 24 << 20
        """
    )
    suite.run().assert_outcomes(passed=4)


def test_unittest_classes(suite):
    suite.tests(
        """
        import unittest, pytest

        @pytest.mark.maqet("nano", memory="24M")
        class TestIt(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _take(self, vm): self.vm = vm

            def test_it(self): self.assertEqual(self.vm.config.memory, 24 << 20)

        @pytest.mark.usefixtures("store")
        class TestUses(unittest.TestCase):
            def test_it(self): pass
        """
    )
    suite.run().assert_outcomes(passed=2)


def test_reserved_names_suggest_another(suite):
    suite.yaml("vms: {cache: {image: builtin:nano}, vm: {image: builtin:nano}, class: {image: builtin:nano}}")
    suite.tests("def test_it(): pass")
    result = suite.run_here()
    assert result.ret == 4
    for name in ("cache", "vm", "class"):
        result.stderr.fnmatch_lines([f"*'{name}'*fixture: NAME*"])


def test_the_list_of_reserved_names_has_all_that_pytest_defines(suite, monkeypatch):
    from pytest_maqet.reserved_names import _BUILT_IN, _OURS

    (suite.path / "maqet.yaml").unlink()
    suite.tests("def test_it(): pass")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = suite.run("--fixtures", "-p", "pytester", "-p", "xdist.plugin", "-p", "pytest_maqet.plugin")
    names = {line.split()[0] for line in result.outlines if " -- " in line and ".py:" in line}
    assert names - _BUILT_IN - _OURS == set(), "add these to the reserved names"


def test_fixtures_are_documented_with_file_and_line(suite):
    suite.tests("def test_it(): pass")
    result = suite.run_here("--fixtures")
    result.stdout.fnmatch_lines(["nano -- *", "*VM 'nano' (maqet.yaml:*)*", "store [[]session scope[]] -- *"])
    setup = suite.run_here("--setup-plan")
    assert setup.ret == 0
