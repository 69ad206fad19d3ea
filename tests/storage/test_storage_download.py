"""Images from a server: verified, resumed, fetched once; nothing wrong is ever kept."""

from __future__ import annotations

import hashlib
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from file_server import FileServer
from image_files import make_image

from pytest_maqet.config import RemoteImage
from pytest_maqet.errors import LockTimeout, StartError
from pytest_maqet.runs.locks import held_lock
from pytest_maqet.storage import download, transfer
from pytest_maqet.storage.download import fetched
from pytest_maqet.storage.images import resolve_image


def image_of(server: FileServer, content: bytes | None = None) -> RemoteImage:
    """The server's image, with the checksum of `content` (default: of what is served)."""
    return RemoteImage(url=server.url, sha256=hashlib.sha256(content or server.content).hexdigest())


def kept(cache: Path) -> list[str]:
    """What lies in the cache besides locks."""
    return sorted(path.name for path in (cache / "images").iterdir() if path.suffix not in (".lock", ".use"))


def begin(server: FileServer, image: RemoteImage, arrived: int) -> None:
    """A download that breaks after so many bytes, and is given up."""
    server.cut = [arrived] + [0] * (download.TRIES - 1)
    with pytest.raises(StartError):
        fetched(image)
    server.asked.clear()
    server.served = 0


@pytest.mark.parametrize("kind", ["sha256", "sha512"])
def test_verified_and_kept(server: FileServer, cache: Path, kind: str) -> None:
    wanted = hashlib.new(kind, server.content).hexdigest()
    image = RemoteImage(url=server.url, **{kind: wanted})
    path = fetched(image)
    assert path.read_bytes() == server.content
    assert stat.S_IMODE(path.stat().st_mode) == 0o400, "a base image must not be writable"
    assert kept(cache) == [f"{kind}-{wanted}"], "something was left beside the image"
    assert fetched(image) == path
    assert server.asked == [None], "what is in the cache was asked for again"


def test_a_downloaded_image_is_a_base_image(server: FileServer, tmp_path: Path) -> None:
    server.content = make_image(tmp_path / "image").read_bytes()
    base = resolve_image(image_of(server))
    assert (base.format, base.size) == ("qcow2", 1 << 20)


def test_a_wrong_checksum_leaves_nothing(server: FileServer, cache: Path) -> None:
    image = image_of(server, b"something else")
    with pytest.raises(StartError) as caught:
        fetched(image)
    found = hashlib.sha256(server.content).hexdigest()
    assert str(caught.value) == (
        f"{server.url} is not what the configuration says: its sha256 is {found}, wanted is {image.sha256}\n"
        "hint: the file on the server has changed, or the checksum is of another file"
    )
    assert kept(cache) == [], "a file that is not what was wanted was kept"
    assert server.asked == [None], "the same bytes were fetched twice"


def test_a_broken_connection_is_taken_up(server: FileServer) -> None:
    server.cut = [400_000, 300_000]
    said: list[str] = []
    assert fetched(image_of(server), report=said.append).read_bytes() == server.content
    assert server.asked == [None, "bytes=400000-", "bytes=700000-"]
    assert server.served == len(server.content), "bytes that had arrived were fetched again"
    assert f"{server.url}: the connection ended 648576 bytes too early; trying again" in said


def test_a_later_call_goes_on(server: FileServer, cache: Path) -> None:
    image = image_of(server)
    server.cut = [400_000, 0, 0, 0]
    with pytest.raises(StartError) as caught:
        fetched(image)
    assert str(caught.value) == (
        f"{server.url} cannot be downloaded: the connection ended 648576 bytes too early\n"
        "hint: the 400000 bytes that have arrived are kept; the next try goes on there"
    )
    server.asked.clear()
    assert fetched(image).read_bytes() == server.content
    assert server.asked == ["bytes=400000-"]
    assert server.served == len(server.content), "bytes that had arrived were fetched again"
    assert kept(cache) == [f"sha256-{image.sha256}"], "the books about the beginning were left behind"


@pytest.mark.parametrize(
    ("etag", "modified"),
    [(None, "Sat, 02 Aug 2025 10:00:00 GMT"), ('W/"1"', "Sat, 02 Aug 2025 10:00:00 GMT")],
)
def test_a_date_will_do_for_a_version(server: FileServer, etag: str | None, modified: str) -> None:
    server.etag, server.modified = etag, modified
    begin(server, image_of(server), 400_000)
    assert fetched(image_of(server)).read_bytes() == server.content
    assert server.asked == ["bytes=400000-"]


def test_without_a_version_nothing_is_put_together(server: FileServer) -> None:
    server.etag = None
    begin(server, image_of(server), 400_000)
    assert fetched(image_of(server)).read_bytes() == server.content
    assert server.asked == [None], "two parts were put together that need not be of one file"


def test_a_server_that_sends_no_parts(server: FileServer) -> None:
    begin(server, image_of(server), 400_000)
    server.ranges = False
    assert fetched(image_of(server)).read_bytes() == server.content, "the whole was put behind the beginning"
    assert server.asked == ["bytes=400000-"]
    assert server.served == len(server.content)


def test_a_file_that_changed_meanwhile(server: FileServer) -> None:
    new = bytes(reversed(server.content))
    begin(server, image_of(server, new), 400_000)
    server.content, server.etag = new, '"2"'
    assert fetched(image_of(server)).read_bytes() == new, "parts of two versions were put together"
    assert server.served == len(new), "the new version was not taken at once"


def test_a_server_that_hides_a_change(server: FileServer) -> None:
    new = bytes(reversed(server.content))
    begin(server, image_of(server, new), 400_000)
    server.content = new  # under the ETag of the old one
    assert fetched(image_of(server)).read_bytes() == new
    assert server.asked == ["bytes=400000-", None], "a mixture was not replaced by a download of the whole"


def test_a_beginning_longer_than_the_file(server: FileServer) -> None:
    new = server.content[:1000]
    begin(server, image_of(server, new), 400_000)
    server.content = new
    assert fetched(image_of(server)).read_bytes() == new
    assert server.asked == ["bytes=400000-", None]


def test_the_beginning_of_another_url_is_not_used(server: FileServer) -> None:
    begin(server, image_of(server), 400_000)
    mirror = RemoteImage(url=f"{server.url}?mirror", sha256=image_of(server).sha256)
    assert fetched(mirror).read_bytes() == server.content
    assert server.asked == [None], "another server's file may have the same ETag"


def test_the_wrong_part(server: FileServer) -> None:
    begin(server, image_of(server), 400_000)
    server.wrong_part = True
    assert fetched(image_of(server)).read_bytes() == server.content
    assert server.asked == ["bytes=400000-", None]


def test_whole_but_not_yet_verified(server: FileServer, cache: Path) -> None:
    image = image_of(server)
    begin(server, image, 400_000)
    (cache / "images" / f"sha256-{image.sha256}.part").write_bytes(server.content)
    assert fetched(image).read_bytes() == server.content
    assert (server.asked, server.served) == ([f"bytes={len(server.content)}-"], 0)


@pytest.mark.parametrize("books", ["", "[]", '{"url": 1}', "\0"])
def test_torn_books_about_a_beginning(server: FileServer, cache: Path, books: str) -> None:
    image = image_of(server)
    begin(server, image, 400_000)
    (cache / "images" / f"sha256-{image.sha256}.part.version").write_text(books)
    assert fetched(image).read_bytes() == server.content
    assert server.asked == [None]


def test_a_server_that_does_not_say_how_long(server: FileServer) -> None:
    server.says_length = False
    assert fetched(image_of(server)).read_bytes() == server.content


def test_not_found(server: FileServer, cache: Path) -> None:
    url = f"http://127.0.0.1:{server.port}/missing"
    with pytest.raises(StartError) as caught:
        fetched(RemoteImage(url=url, sha256="0" * 64))
    assert str(caught.value) == (
        f"{url}: the server answered 404 Not Found\nhint: the image has moved, or its URL is wrong"
    )
    assert len(server.asked) == 1, "asking again does not make it be there"
    assert kept(cache) == []


def test_nobody_listens(server: FileServer, cache: Path) -> None:
    with socket.socket() as bound:  # a port that is taken, and that nobody listens on
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/image"
        with pytest.raises(StartError) as caught:
            fetched(RemoteImage(url=url, sha256="0" * 64))
    assert str(caught.value) == (
        f"{url} cannot be downloaded: Connection refused\n"
        "hint: is the server up, and can it be reached from this host?"
    )
    assert kept(cache) == []


def test_a_server_that_says_nothing(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "SILENCE", 0.05)
    monkeypatch.setattr(download, "TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/image"
        with pytest.raises(StartError, match=r"cannot be downloaded: the server said nothing for 0\.05 s"):
            fetched(RemoteImage(url=url, sha256="0" * 64))


def test_what_is_no_http(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/image"
        with pytest.raises(StartError, match="the server's answer makes no sense"):
            fetched(RemoteImage(url=url, sha256="0" * 64))
        thread.join()


def test_a_url_with_a_password(server: FileServer) -> None:
    url = server.url.replace("//", "//user:hunter2@")
    with pytest.raises(StartError) as caught:
        fetched(RemoteImage(url=url, sha256="0" * 64))
    assert "hunter2" not in str(caught.value), "the password was shown"
    assert "has a user name in it, and downloads do not log in" in str(caught.value)
    assert server.asked == []


def test_a_full_disk(server: FileServer, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQET_CACHE_DIR", str(small_disk))
    with pytest.raises(StartError, match=r"does not fit into .*: 1\.0 MB are missing of it, 0\.3 MB"):
        fetched(image_of(server))
    server.says_length = False  # then it is only seen when the disk is full
    with pytest.raises(StartError, match=r"cannot be kept in .*: No space left on device\nhint: "):
        fetched(image_of(server))
    assert kept(small_disk) == [], "the disk was left full"


_FETCH = """
import sys
from pytest_maqet.config import RemoteImage
from pytest_maqet.storage.download import fetched
print(fetched(RemoteImage(url=sys.argv[1], sha256=sys.argv[2]), report=lambda line: print(line, flush=True)))
"""


def test_two_processes_ask_once(server: FileServer) -> None:
    server.gate = threading.Event()
    image = image_of(server)
    command = [sys.executable, "-c", _FETCH, image.url, str(image.sha256)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == f"downloading {image.url}, 1.0 MB\n"
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    assert second.stdout.readline().startswith(
        f"waiting for {image.url}, which is being downloaded by image download (process {first.pid}, "
    )
    server.gate.set()
    [(found, _), (also, _)] = [process.communicate(timeout=30) for process in (first, second)]
    assert found == also
    assert Path(found.strip()).read_bytes() == server.content
    assert server.asked == [None], "every process has downloaded it"


def test_a_wait_for_another_process_ends(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LOCK_TIMEOUT", 0.05)
    image = image_of(server)
    (cache / "images").mkdir(parents=True, mode=0o700)
    (cache / "images").parent.chmod(0o700)
    lock = cache / "images" / f"sha256-{image.sha256}.lock"
    with (
        held_lock(lock, timeout=1, what="", owner="gw7"),
        pytest.raises(LockTimeout, match=rf"the download of {server.url} was locked .* by gw7"),
    ):
        fetched(image)
    assert server.asked == []


def test_progress(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PROGRESS", 0)
    said: list[str] = []
    fetched(image_of(server), report=said.append)
    assert said[0] == f"downloading {server.url}, 1.0 MB"
    assert said[-1] == f"downloading {server.url}, 1.0 MB of 1.0 MB"
