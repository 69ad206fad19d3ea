"""Power, events and the serial console, on a guest that boots in a tenth of a second."""


def test_console_is_heard_from_the_first_byte(tiny):
    assert tiny.wait.console("guest ready", since="start")


def test_echo(tiny):
    tiny.console.send("hello\n")
    tiny.wait.console("echo: hello")


def test_power_off_by_acpi(tiny):
    tiny.powerdown()
    assert tiny.wait.shutdown() == "guest-shutdown"


def test_stop_and_start_again(tiny):
    first = tiny.pid
    tiny.stop()
    assert tiny.status == "stopped"
    tiny.start()
    assert tiny.pid != first
    assert tiny.status == "running"


def test_one_vm_for_all_workers(shared):
    shared.console.send("from a worker\n")
    shared.wait.console("echo: from a worker")


def test_two_machines(tiny, web):
    assert tiny.status == web.status == "running"
