"""Archives follow RFC 9110: ranges, lengths, digests, and HEAD equal to GET."""

from __future__ import annotations

import http.client
import io
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from rig.archive.archives import SUFFIXES, Archives, digest, fill, told
from rig.archive.in_process import InProcess

from agent.server import interim_responses
from shared.wire.protocol import archive_path, frame_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

every_encoding = pytest.mark.parametrize("suffix", SUFFIXES)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archives]:
    """Start one agent for the tests that only read, with each archive complete."""
    place = tmp_path_factory.mktemp("archives")
    fill(place / "Library")
    with InProcess(place / "state", place / "Library") as agent:
        yield Archives(agent)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[InProcess]:
    """Start an agent for the same library that has no index yet."""
    fill(tmp_path / "Library")
    with InProcess(tmp_path / "state", tmp_path / "Library") as agent:
        yield agent


def test_archive_is_the_library(archives: Archives) -> None:
    """Python's tarfile reads the archive, and the three encodings hold the same tar."""
    with tarfile.open(fileobj=io.BytesIO(archives.whole["tar"])) as tar:
        for member in tar.getmembers():
            if member.isfile():
                found = tar.extractfile(member)
                assert found is not None
                file = archives.agent.library.parent / member.name
                assert found.read() == file.read_bytes()
        names = tar.getnames()
        assert len(names) == 12
    with tarfile.open(fileobj=io.BytesIO(archives.whole["tar.gz"]), mode="r:gz") as packed:
        assert packed.getnames() == names


def ranges(size: int) -> dict[str, tuple[int, int]]:
    """Return range headers and the positions that they mean."""
    last = size - 1
    return {
        "0-0": (0, 1),
        "0-": (0, size),
        f"0-{last}": (0, size),
        f"0-{size}": (0, size),
        f"1-{'9' * 30}": (1, size),
        f"{last}-": (last, size),
        f"{last}-{last}": (last, size),
        f"{last - 9}-{size + 9}": (last - 9, size),
        "-1": (last, size),
        f"-{size}": (0, size),
        f"-{size + 1}": (0, size),
        f"-{'9' * 30}": (0, size),
        "4194303-4194304": (4194303, 4194305),
        "1000-5000000": (1000, 5000001),
    }


@every_encoding
def test_one_range(archives: Archives, suffix: str) -> None:
    """A range gets 206 with its bytes and their position."""
    whole = archives.whole[suffix]
    for asked, (start, stop) in ranges(len(whole)).items():
        answer = archives.get(suffix, ("Range", f"bytes={asked}"))
        assert answer.status == 206, asked
        is_same = answer.body == whole[start:stop]
        assert is_same, asked
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
        assert answer.headers["Content-Length"] == str(stop - start)
        assert answer.headers["ETag"] == archives.tag[suffix]
        assert answer.headers["Repr-Digest"] == digest(whole)
        assert answer.headers.get("Content-Digest", digest(answer.body)) == digest(answer.body)


@every_encoding
def test_range_that_has_no_byte(archives: Archives, suffix: str) -> None:
    """An unsatisfiable range gets 416 with the size, as a problem, without archive headers."""
    size = len(archives.whole[suffix])
    for asked in ("-0", f"{size}-", f"{size}-{size}", f"{size + 1}-", f"{'9' * 30}-{'9' * 31}"):
        answer = archives.get(suffix, ("Range", f"bytes={asked}"))
        assert answer.status == 416, asked
        assert answer.headers["Content-Range"] == f"bytes */{size}"
        assert answer.problem().status == 416
        assert "Repr-Digest" not in answer.headers


@pytest.mark.parametrize(
    "lines",
    [
        ["bytes=0-1,4-5"],
        ["bytes=0-0,-1"],
        ["bytes=0-1", "bytes=4-5"],
        ["bytes=5-4"],
        ["bytes=x-y"],
        ["bytes"],
        ["octets=0-1"],
        ["bytes=" + "9" * 2000 + "-"],
    ],
)
def test_ranges_that_are_answered_whole(archives: Archives, lines: list[str]) -> None:
    """Several ranges, other units or no range get 200 and the whole."""
    answer = archives.get("tar.gz", *(("Range", line) for line in lines))
    assert (answer.status, len(answer.body)) == (200, len(archives.whole["tar.gz"]))
    assert "Content-Range" not in answer.headers


def test_unit_in_capitals(archives: Archives) -> None:
    """Range units are case-insensitive (RFC 9110 section 14.1)."""
    assert archives.status(("Range", "BYTES=0-1")) == 206


@every_encoding
def test_head_is_get_without_its_body(archives: Archives, suffix: str) -> None:
    """The same fields, with a Range too, which HEAD has not (RFC 9110 sections 9.3.2 and 14.2).

    Except Content-Digest, which would be that of no bytes (RFC 9530 appendix B.2).
    """
    get = archives.get(suffix)
    assert get.headers["Content-Length"] == str(len(archives.whole[suffix]))
    assert get.headers["Content-Digest"] == digest(archives.whole[suffix])
    assert get.headers["Accept-Ranges"] == "bytes"
    for more in ([], [("Range", "bytes=0-1")], [("Range", "bytes=-0")]):
        head = archives.get(suffix, *more, method="HEAD")
        assert (head.status, head.body) == (get.status, b"")
        assert told(head.headers) == told(get.headers, "Content-Digest")


@every_encoding
def test_head_first(fresh: InProcess, suffix: str) -> None:
    """A first HEAD has the length, and the GET sends exactly that many bytes."""
    path = archive_path(fresh.client.snapshot(), suffix)
    head = fresh.client.ask(path, method="HEAD")
    get = fresh.client.ask(path)
    assert head.status == get.status == 200
    assert head.headers["Content-Length"] == str(len(get.body))
    assert told(head.headers, "Repr-Digest") == told(get.headers, "Repr-Digest", "Content-Digest")
    counts = fresh.times_made().values()
    assert max(counts) <= (1 if suffix == "tar" else 2)


@every_encoding
def test_first_get_is_sent_at_once(fresh: InProcess, suffix: str) -> None:
    """The first GET is chunked, a later one has a length, and the bytes are the same."""
    path = archive_path(fresh.client.snapshot(), suffix)
    first, second = fresh.client.ask(path), fresh.client.ask(path)
    is_known = suffix == "tar"
    assert ("Content-Length" in first.headers) == is_known
    assert first.headers.get("Transfer-Encoding") == (None if is_known else "chunked")
    assert "Content-Length" in second.headers
    is_same = first.body == second.body
    assert is_same
    assert max(fresh.times_made().values()) == 1  # all within the cache's reach


@every_encoding
def test_http_1_0_is_told_the_length(fresh: InProcess, suffix: str) -> None:
    """HTTP/1.0 clients get a length at once, because a cut would look like the end."""
    path = archive_path(fresh.client.snapshot(), suffix)
    for _ in range(2):
        with fresh.client.asked(path, version="HTTP/1.0") as connection:
            everything = b"".join(iter(lambda: connection.recv(1 << 20), b""))
        head, _, body = everything.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 ")
        assert f"content-length: {len(body)}".encode() in head.lower()
        assert b"transfer-encoding" not in head.lower()
        is_same = body == fresh.client.ask(path).body
        assert is_same


@every_encoding
def test_digest_when_it_is_asked_for(fresh: InProcess, suffix: str) -> None:
    """HEAD, GET and ranges have the digest of the whole, and it is known after a restart."""
    snapshot = fresh.client.snapshot()
    path = archive_path(snapshot, suffix)
    frames = [fresh.client.ask(frame_path(snapshot, number, suffix)) for number in range(7)]
    assert [frame.status for frame in frames] == [200] * 6 + [404]
    assert "Repr-Digest" not in fresh.client.ask(path, [("Range", "bytes=0-1")]).headers
    refused = [("Want-Repr-Digest", "sha-256=0, sha-512=9")]
    assert "Repr-Digest" not in fresh.client.ask(path, refused, method="HEAD").headers
    fresh.restart()
    wanted = [("Want-Repr-Digest", "sha-512=3, sha-256=10"), ("Range", "bytes=7-9")]
    part = fresh.client.ask(path, wanted)
    whole = fresh.client.ask(path)
    assert part.headers["Repr-Digest"] == whole.headers["Repr-Digest"] == digest(whole.body)
    fresh.restart()
    before = len(fresh.made)
    again = fresh.client.ask(path, wanted[:1], method="HEAD")
    assert again.headers["Repr-Digest"] == digest(whole.body)
    assert again.headers["ETag"] == whole.headers["ETag"]
    assert again.headers["Content-Length"] == str(len(whole.body))
    assert len(fresh.made) == before


def test_other_methods_and_names(archives: Archives) -> None:
    """Other methods get 405 with the allowed ones, and unknown names get 404."""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = archives.get("tar.gz", ("Content-Length", "0"), method=method)
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET,HEAD"
    for suffix in ("zip", "tar.bz2", "tar.GZ", "tar.gz/", "tarXgz", "tar.gz%00", ""):
        assert archives.get(suffix).status == 404, suffix
    missing = archive_path("0" * 64, "tar")
    assert archives.agent.client.ask(missing).problem().type == "urn:plexodus:no-such-snapshot"


@pytest.mark.parametrize(
    ("version", "prefers", "is_told"),
    [
        ("HTTP/1.1", "respond-async, processing", True),
        ("HTTP/1.1", "respond-async", False),
        ("HTTP/1.0", "processing", False),
    ],
)
def test_patience_is_asked_only_of_who_understands(
    fresh: InProcess,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    prefers: str,
    is_told: bool,  # noqa: FBT001 - a row
) -> None:
    """Only HTTP/1.1 clients that ask for it get 102 while frames are encoded."""
    monkeypatch.setattr(interim_responses, "_INTERVAL", 0.001)
    path = archive_path(fresh.client.snapshot(), "tar.gz")
    with fresh.client.asked(
        path, [("Prefer", prefers), ("Connection", "close")], method="HEAD", version=version
    ) as connection:
        everything = b"".join(iter(lambda: connection.recv(65536), b""))
    interim = everything.count(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert (interim > 0) == is_told
    last = everything.removeprefix(b"HTTP/1.1 102 Processing\r\n\r\n" * interim)
    assert last.startswith(f"{version} 200 OK\r\n".encode())
    headers: Any = http.client.parse_headers(io.BytesIO(last.partition(b"\r\n")[2]))
    assert headers["Content-Length"] == str(len(fresh.client.ask(path).body))
