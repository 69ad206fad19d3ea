"""Commands, ports and failures in a Linux guest that all tests of this file share."""

import pytest

from pytest_maqet import CommandError, GuestPanic


def test_output_status_and_stderr(store):
    result = store.run("echo out; echo err >&2; exit 3", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)


def test_a_failing_command_says_why(store):
    with pytest.raises(CommandError, match="No such file"):
        store.run(["cat", "/no/such/file"])


def test_input_and_bytes(store):
    data = bytes(range(256))
    assert store.run("cat", input=data, encoding=None).stdout == data


def test_a_disk_of_its_own(store):
    sectors = int(store.run("cat /sys/block/vda/size").stdout)
    assert sectors * 512 == 64 * 1024 * 1024


def test_web_server(web):
    web.run("mkdir -p /srv && echo hello > /srv/index.html && httpd -p 80 -h /srv")
    answer = web.wait.http(80, "/index.html")
    assert answer.text == "hello\n"


def test_kernel_panic(web):
    with web.expecting(GuestPanic, match="sysrq") as caught:
        web.run("echo c > /proc/sysrq-trigger")
    assert "panic" in str(caught.value)
