"""Tests on the smallest guest: scopes, clones, templates, checkpoints, power."""

import pytest


def echo(vm, word):
    vm.console.send(f"{word}\n")
    vm.wait.console(f"echo: {word}", timeout=10)


def say_prepared(vm):
    echo(vm, "prepared")


@pytest.mark.parametrize("number", range(3))
def test_clone(nano, number):
    echo(nano, f"clone {number}")


def test_boot(booted):
    echo(booted, "booted")


@pytest.mark.parametrize("number", range(2))
def test_session_vm(kept, number):
    echo(kept, f"kept {number}")


@pytest.mark.parametrize("number", range(3))
def test_run_vm(shared, number):
    assert shared.qmp.execute("query-status")["status"] == "running"


def test_two_at_once(nano, booted, vm_factory):
    for vm in (nano, booted, vm_factory("nano")):
        echo(vm, "several")


@pytest.mark.parametrize("number", range(2))
def test_derived_template(maqet, vm_factory, number):
    vm = vm_factory(maqet.template("nano", prepare=say_prepared, key=["chaos"]))
    assert "echo: prepared" in vm.console_log.read_text()
    echo(vm, f"derived {number}")


def test_checkpoint(booted):
    echo(booted, "before")
    booted.checkpoint("here")
    echo(booted, "after")
    booted.restore("here")
    echo(booted, "again")


def test_frozen_here(nano, vm_factory):
    echo(nano, "to be frozen")
    template = nano.freeze()
    for number in range(2):
        echo(vm_factory(template), f"frozen {number}")


def test_back_to_ready(nano):
    echo(nano, "spoiled")
    nano.restore("ready")
    echo(nano, "ready")


def test_power(booted):
    booted.reset()
    booted.wait.event("RESET", timeout=10)
    booted.kill()
    booted.start()
    echo(booted, "started again")
