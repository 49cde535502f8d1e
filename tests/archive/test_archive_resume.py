"""A download that was cut anywhere is completed correctly by curl, wget and aria2c."""

from __future__ import annotations

import random
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from rig.archive import downloads
from rig.archive.downloads import (
    ENCODINGS,
    GZIP_FIRST,
    announced_digest,
    aria2,
    aria2_words,
    curl,
    curl_words,
    shell,
    wait_for_size,
    wget,
    whole_seconds,
)
from rig.oracle import rsync_differences
from rig.programs import Agent, running
from rig.volume import grow_small

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024


@dataclass
class Fetched:
    """An archive as curl downloaded it, and the offsets of its frames."""

    agent: Agent
    path: str
    whole: Path
    starts: list[int]

    @property
    def size(self) -> int:
        """Bytes of it."""
        return self.whole.stat().st_size

    def cut_at(self, offset: int, file: Path) -> Path:
        """``file``, made to have nothing but the first bytes."""
        with self.whole.open("rb") as source, file.open("wb") as part:
            part.write(source.read(offset))
        return file

    def is_whole(self, file: Path) -> bool:
        """Return whether ``cmp`` finds no difference."""
        return downloads.run("cmp", self.whole, file).code == 0

    def cuts(self) -> list[int]:
        """Offsets at which it goes wrong, if it does anywhere."""
        found = {1, 2, self.size - 1, self.size - 2}
        for start, stop in pairwise(self.starts):
            found |= {start - 1, start, start + 1, stop - 1}
        for start in (0, self.starts[5], self.starts[-2]):  # a member's header, and a bit more
            found |= {start + more for more in range(1, 20)}
        found |= {self.size - off for off in (4, 8, 9, 511, 512, 513, 1023, 1024, 1025, 1536)}
        anywhere = random.Random(5)  # noqa: S311 - the same places each time
        found |= {anywhere.randrange(self.size) for _ in range(12)}
        return sorted(offset for offset in found if 0 <= offset < self.size)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Start one agent for all tests that leave it running."""
    place = tmp_path_factory.mktemp("served")
    library = whole_seconds(grow_small(place / "vm" / "Library"))
    agent = Agent(place / "state", library, place / "agent.log")
    agent.pair()
    with running(agent):
        yield agent


@contextmanager
def fetched(agent: Agent, suffix: str, place: Path) -> Iterator[Fetched]:
    """Return the archive in one encoding, with frame offsets from the frames' own URLs."""
    snapshot = agent.scan()
    path, whole = downloads.archive(snapshot.id, suffix), place / "whole"
    got = curl(agent, path, "-o", whole)
    assert got.code == 0, got.err
    starts = downloads.frame_starts(agent, snapshot.id, suffix, snapshot.frames)
    assert starts[-1] == whole.stat().st_size
    yield Fetched(agent, path, whole, starts)


def _resume_everywhere(of: Fetched, cuts: list[int], file: Path) -> None:
    for offset in cuts:
        of.cut_at(offset, file)

        done = curl(of.agent, of.path, "-C", "-", "-o", file)

        assert (done.code, done.err) == (0, ""), offset
        assert of.is_whole(file), offset


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_curl_after_a_cut_near_a_boundary(agent: Agent, suffix: str, tmp_path: Path) -> None:
    """A cut at or near the beginning of a frame is resumed correctly by curl."""
    with fetched(agent, suffix, tmp_path) as of:
        middle, last = of.starts[6], of.starts[-2]
        cuts = [0, 1, middle - 1, middle, middle + 1, middle + 5, last - 1, last, last + 10]
        cuts += [of.size - 1025, of.size - 512, of.size - 1]
        _resume_everywhere(of, cuts, tmp_path / "part")
        assert downloads.statuses(agent, of.path).count(206) >= len(cuts) - 1


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("suffix", ENCODINGS)
def test_curl_after_a_cut_anywhere(agent: Agent, suffix: str, tmp_path: Path) -> None:
    """A cut at boundaries, in headers, at the end or at random is resumed correctly by curl."""
    with fetched(agent, suffix, tmp_path) as of:
        cuts = of.cuts()
        assert len(cuts) > 100
        _resume_everywhere(of, cuts, tmp_path / "part")


@pytest.mark.parametrize("suffix", GZIP_FIRST)
def test_nothing_more_to_resume(agent: Agent, suffix: str, tmp_path: Path) -> None:
    """A complete file stays as it is, and a longer one is not accepted.

    curl calls both 416 and ends with 22, as it does with --fail; wget succeeds.
    """
    with fetched(agent, suffix, tmp_path) as of:
        file = of.cut_at(of.size, tmp_path / "part")
        done = curl(agent, of.path, "-C", "-", "-o", file)
        assert (done.code, "416" in done.err) == (22, True) or done.code == 0
        assert of.is_whole(file)
        assert wget(agent, of.path, file).code == 0
        assert of.is_whole(file)
        assert aria2(agent, of.path, file).code == 0
        assert of.is_whole(file)

        with file.open("ab") as longer:
            longer.write(b"x")
        curl(agent, of.path, "-C", "-", "-o", file)
        wget(agent, of.path, file)
        assert file.stat().st_size == of.size + 1


def test_complete_and_not_told_to_fail(agent: Agent, tmp_path: Path) -> None:
    """Without ``-f`` curl takes 416 for the end, exits 0 and appends nothing."""
    with fetched(agent, "tar.gz", tmp_path) as of:
        file = of.cut_at(of.size, tmp_path / "part")
        words = curl_words(agent, of.path, "-C", "-", "-o", file)
        words[1] = "-sSLk"
        assert downloads.run(*words).code == 0
        assert of.is_whole(file)


@pytest.mark.parametrize("suffix", GZIP_FIRST)
def test_wget_after_a_cut(agent: Agent, suffix: str, tmp_path: Path) -> None:
    """GNU wget, which first requests without the password, resumes correctly."""
    with fetched(agent, suffix, tmp_path) as of:
        for offset in (0, of.starts[4] - 1, of.starts[4], of.starts[4] + 3, of.size - 1):
            file = of.cut_at(offset, tmp_path / "part")
            done = wget(agent, of.path, file)
            assert done.code == 0, done.err
            assert of.is_whole(file), offset


def test_busybox_wget_after_a_cut(agent: Agent, tmp_path: Path) -> None:
    """BusyBox wget resumes through the redirect, with its own TLS and HTTP."""
    with fetched(agent, "tar.gz", tmp_path) as of:
        url = f"https://x:{agent.token}@127.0.0.1:{agent.port}/plex-library.tar.gz"
        for offset in (0, of.starts[4], of.size // 2):
            file = of.cut_at(offset, tmp_path / "part")
            options: list[str | Path] = ["-q", "-c", "--no-check-certificate", "-O", file, url]
            done = downloads.run("busybox", "wget", *options)
            assert done.code == 0, done.err
            assert of.is_whole(file), offset


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_aria2_in_eight_pieces(agent: Agent, suffix: str, tmp_path: Path) -> None:
    """aria2 requests several ranges at once, and none is mixed up."""
    with fetched(agent, suffix, tmp_path) as of:
        announced = announced_digest(agent, of.path)
        before = downloads.statuses(agent, of.path).count(206)

        done = aria2(agent, of.path, tmp_path / "split")

        assert done.code == 0, done.out
        assert downloads.statuses(agent, of.path).count(206) >= before + 4
        assert downloads.digest(tmp_path / "split") == announced
        assert not (tmp_path / "split.aria2").exists()


def test_aria2_killed_and_begun_again(agent: Agent, tmp_path: Path) -> None:
    """After a kill, aria2 fetches only what its control file says is missing."""
    with fetched(agent, "tar.gz", tmp_path) as of:
        file = tmp_path / "split"
        words = aria2_words(
            agent, of.path, file, "--max-overall-download-limit=8M", "--auto-save-interval=1"
        )
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        control = file.with_name("split.aria2")
        wait_for_size(control, 1, process)
        wait_for_size(file, 20 * MIB, process)
        process.kill()
        process.wait()
        assert control.exists()

        done = aria2(agent, of.path, file)

        assert done.code == 0, done.out
        assert of.is_whole(file)


@pytest.mark.parametrize(
    ("suffix", "line"),
    [
        ("tar", "tar xp"),
        ("tar.gz", "tar xzp"),
        ("tar.gz", "bsdtar xpf -"),
        ("tar.zst", "zstd -dc | tar xp"),
    ],
)
def test_straight_into_files(agent: Agent, suffix: str, line: str, tmp_path: Path) -> None:
    """``curl | tar`` writes the tree and no other file."""
    words = curl_words(agent, downloads.archive(agent.scan().id, suffix))

    done = shell(f'"$@" | {line}', *words, cwd=tmp_path)

    assert (done.code, done.err) == (0, "")
    assert rsync_differences(agent.library, tmp_path / "Library") == []


WAYS = {
    "curl-password": "curl -fsSLk -u x:$TOKEN -o got $URL",
    "curl-bearer": 'curl -fsSLk -H "Authorization: Bearer $TOKEN" -o got $URL',
    "curl-certificate": "curl -fsSL --cacert $STATE/agent.crt -u x:$TOKEN -o got"
    " --resolve plexodus-agent:$PORT:127.0.0.1 https://plexodus-agent:$PORT/plex-library.tar.gz",
    "wget-password": "wget -q --no-check-certificate --user=x --password=$TOKEN -O got $URL",
    "wget-bearer": "wget -q --no-check-certificate --header 'Authorization: Bearer '$TOKEN"
    " -O got $URL",
    "aria2-password": "aria2c -q --no-conf --check-certificate=false --http-user=x"
    " --http-passwd=$TOKEN --use-head=true -x8 -s8 -k1M -o got $URL",
    "aria2-bearer": "aria2c -q --no-conf --check-certificate=false"
    " --header 'Authorization: Bearer '$TOKEN -x8 -s8 -k1M -o got $URL",
}


@pytest.mark.parametrize("line", WAYS.values(), ids=WAYS.keys())
def test_every_way_to_say_who_one_is(agent: Agent, line: str, tmp_path: Path) -> None:
    """Token as password or Bearer works through the redirect, with the certificate checked."""
    variables = (
        f"TOKEN={agent.token} PORT={agent.port} STATE={agent.state}"
        f" URL={agent.url}/plex-library.tar.gz"
    )
    announced = announced_digest(agent, "/plex-library.tar.gz")

    done = shell(f"{variables}; {line}", cwd=tmp_path)

    assert done.code == 0, done.err
    assert downloads.digest(tmp_path / "got") == announced
