"""The markers: what they choose and change, and one clear collection error for each fault."""

from __future__ import annotations

import pytest

FAULTS = {
    "unknown VM": ("@pytest.mark.maqet('nani')\ndef test_it(vm): pass", "*nani*nano*"),
    "unknown key": ("@pytest.mark.maqet(memori='1G')\ndef test_it(vm): pass", "*memori*memory*"),
    "wrong type": ("@pytest.mark.maqet(memory='lots')\ndef test_it(vm): pass", "*memory*lots*"),
    "wrong scope": (
        "@pytest.mark.maqet(scope='world')\ndef test_it(vm): pass",
        "*scope='world'*function*run*",
    ),
    "two names": ("@pytest.mark.maqet('nano', 'store')\ndef test_it(vm): pass", "*one VM name*"),
    "no name": ("@pytest.mark.maqet(3)\ndef test_it(vm): pass", "*takes a VM's name*3*"),
    "exclusive": ("@pytest.mark.maqet(exclusive='yes')\ndef test_it(vm): pass", "*exclusive='yes'*"),
    "unused": ("@pytest.mark.maqet('nano')\ndef test_it(): pass", "*has no effect*uses no `vm`*"),
    "requirement": ("@pytest.mark.maqet_requires(cpu=4)\ndef test_it(): pass", "*maqet_requires(cpu=…)*kvm*"),
    "version": ("@pytest.mark.maqet_requires(qemu='new')\ndef test_it(): pass", "*write it like '>=8.2'*"),
}


@pytest.mark.parametrize(
    ("fault", "workers"), [*((fault, "-n0") for fault in FAULTS), ("unknown VM", "-n2"), ("unused", "-n2")]
)
def test_a_fault_is_a_collection_error(suite, fault, workers):
    source, message = FAULTS[fault]
    suite.tests(f"import pytest\n{source}\n")
    result = suite.run_here() if workers == "-n0" else suite.run(workers)
    result.stdout.fnmatch_lines(["*ERROR collecting test_it.py*", message])
    assert "test_it.py::test_it" in result.stdout.str(), "the error does not say which test it is"
    for noise in ("Traceback", "INTERNALERROR", "pytest_maqet/"):
        assert noise not in result.stdout.str(), f"{noise} in the output of a user's mistake"
    assert suite.left_over() == [], "something was started or left behind"


def test_an_unused_marker_on_a_unittest_method_fails_it(suite):
    suite.tests(
        """
        import unittest, pytest

        class TestIt(unittest.TestCase):
            @pytest.mark.maqet("nano")
            def test_unused(self): pass
        """
    )
    result = suite.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*has no effect*"])


def test_the_nearest_marker_wins_and_outer_ones_come_first(suite):
    suite.tests(
        """
        import pytest
        pytestmark = pytest.mark.maqet("nano", memory="24M", **{"cpu.count": 2})

        @pytest.mark.maqet(memory="32M")
        class TestOuter:
            def test_class(self, vm):
                assert (vm.name, vm.config.memory >> 20, vm.config.cpu.count) == ("nano", 32, 2)

            @pytest.mark.maqet(memory="48M")
            def test_function(self, vm):
                assert (vm.config.memory >> 20, vm.config.cpu.count) == (48, 2)

            @pytest.mark.maqet("store")
            def test_another_vm_is_not_changed_by_what_was_meant_for_the_first(self, vm):
                assert (vm.name, vm.config.memory >> 20, vm.config.cpu.count) == ("store", 32, 1)
        """
    )
    suite.run().assert_outcomes(passed=3)


def test_requirements_skip_or_fail(suite):
    suite.tests(
        """
        import pytest

        @pytest.mark.maqet_requires(binary=["no-such-program"])
        def test_program(vm): pass

        @pytest.mark.maqet_requires(arch="pdp11")
        def test_arch(): pass

        @pytest.mark.maqet_requires(qemu=">=99")
        def test_new(vm): pass

        @pytest.mark.maqet_requires(qemu=">=2.0", binary="sh")
        def test_has_all(): pass
        """
    )
    result = suite.run_here("-rs")
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(
        ["*no program 'no-such-program'*", "*pdp11*", "*QEMU is *not >=99*"], consecutive=False
    )
    failing = suite.run_here("--maqet-skips=fail")
    failing.assert_outcomes(
        passed=1, failed=3
    ) if "3 failed" in failing.stdout.str() else failing.assert_outcomes(passed=1, errors=3)


def test_several_vms_on_the_command_line_parametrise_tests_without_a_marker(suite):
    suite.tests(
        """
        import pytest

        def test_any(vm): print("GOT", vm.name)

        @pytest.mark.maqet("store")
        def test_own(vm): assert vm.name == "store"

        @pytest.mark.parametrize("vm", ["nano"], indirect=True)
        def test_parametrised(vm): assert vm.name == "nano"
        """
    )
    result = suite.run("--maqet-vm=nano", "--maqet-vm=store", "-v", "-s")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*test_any[[]nano[]]*", "*test_any[[]store[]]*"])


def test_collecting_starts_nothing(suite):
    suite.tests("def test_it(vm, store): pass")
    result = suite.run_here("--collect-only", "-q")
    assert result.ret == 0
    assert suite.left_over() == []
