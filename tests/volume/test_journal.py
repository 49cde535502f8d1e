"""After a kill or a power loss, the journal lists no frame that is not on the volume."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initpuller.volume.records.journal import Journal, count_done

FRAMES = 8
DIGEST = "0123456789abcdef" * 4
LINES = [f"done {number} {DIGEST}\n".encode() for number in range(FRAMES)]


def _replayed(path: Path, content: bytes, frames: int = FRAMES) -> list[int]:
    """Return the safe frames by a journal with this content. ``status`` must agree."""
    path.write_bytes(content)
    counted = count_done(str(path), frames)
    assert path.read_bytes() == content, "status changes nothing"
    journal = Journal(str(path), frames)
    try:
        assert len(journal) == counted
        return [number for number in range(frames) if number in journal]
    finally:
        journal.close()


@pytest.mark.parametrize(
    "tail",
    [
        LINES[2][:-1],
        LINES[2][:10],
        b"d",
        bytes(512),
        bytes(3),
        b"\n",
        b"\r\n",
        b"\xff\xfe garbage \x00\n",
        f"done {FRAMES} {DIGEST}\n".encode(),
        f"done 99999999999 {DIGEST}\n".encode(),
        f"done -1 {DIGEST}\n".encode(),
        f"done {DIGEST}\n".encode(),
        f"done 2 {DIGEST.upper()}\n".encode(),
        f"done 2 {DIGEST} \n".encode(),
        f"done 2 {DIGEST[:-1]}\n".encode(),
        f"done  2 {DIGEST}\n".encode(),
        f"kept 2 {DIGEST[1:]}\n".encode(),
        b"held\n",
        f"kept {FRAMES}\n".encode(),
        b"undo 0\n",
        "done ２ ".encode() + DIGEST.encode() + b"\n",  # noqa: RUF001 - digits of another script
    ],
)
def test_torn_zeroed_or_foreign_tail(tmp_path: Path, tail: bytes) -> None:
    """Valid lines before a damaged tail count, and the tail is cut off."""
    path = tmp_path / "journal"
    good = LINES[0] + LINES[1]

    assert _replayed(path, good + tail + LINES[3]) == [0, 1]
    assert path.read_bytes() == good


def test_appending_after_a_torn_line(tmp_path: Path) -> None:
    """A new record replaces a torn one, and both readers agree."""
    path = tmp_path / "journal"
    path.write_bytes(LINES[0] + LINES[1][:20])
    journal = Journal(str(path), FRAMES)
    journal.done([(5, DIGEST), (1, DIGEST)])
    journal.carried([(7, None)], [])
    journal.close()

    assert path.read_bytes() == LINES[0] + LINES[5] + LINES[1] + b"kept 7\n"
    assert _replayed(path, path.read_bytes()) == [0, 1, 5, 7]


def test_frame_to_repeat_is_recorded(tmp_path: Path) -> None:
    """A frame found damaged stays missing after a restart, until it is fetched again."""
    path = tmp_path / "journal"
    journal = Journal(str(path), FRAMES)
    journal.done((number, DIGEST) for number in range(FRAMES))
    assert list(journal.missing()) == []
    journal.redo([2, 6])
    assert list(journal.missing()) == [2, 6]
    journal.close()

    assert _replayed(path, path.read_bytes()) == [0, 1, 3, 4, 5, 7]
    assert _replayed(path, path.read_bytes() + LINES[2]) == [0, 1, 2, 3, 4, 5, 7]


@pytest.mark.parametrize("parts", [1, 2, 3, FRAMES, FRAMES + 3])
def test_each_missing_frame_is_in_one_part(tmp_path: Path, parts: int) -> None:
    """A frame in no part would never arrive, and one in two would be fetched twice."""
    journal = Journal(str(tmp_path / "journal"), FRAMES)
    journal.done([(0, DIGEST), (5, DIGEST)])
    found = [list(part) for part in journal.missing_parts(parts)]
    journal.close()

    assert len(found) == parts
    assert [number for part in found for number in part] == [1, 2, 3, 4, 6, 7]


def test_what_this_run_brought_is_not_of_an_earlier_one(tmp_path: Path) -> None:
    """Only frames from before the journal was opened are read back."""
    path = tmp_path / "journal"
    path.write_bytes(LINES[4])
    journal = Journal(str(path), FRAMES)
    journal.done([(1, DIGEST)])

    assert 1 in journal
    assert 4 in journal
    assert [n for n in range(FRAMES) if journal.is_of_earlier_run(n)] == [4]
    journal.close()


def test_a_journal_that_is_not_there(tmp_path: Path) -> None:
    """Without a journal, ``status`` counts no frame and creates none, and follows no link."""
    path, elsewhere = tmp_path / "journal", tmp_path / "elsewhere"
    assert count_done(str(path), FRAMES) == 0
    assert not path.exists()

    elsewhere.write_bytes(b"precious")
    path.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        Journal(str(path), FRAMES)
    assert elsewhere.read_bytes() == b"precious"


RECORDS = st.lists(
    st.tuples(st.sampled_from(["done", "kept", "redo"]), st.integers(0, FRAMES - 1)), max_size=30
)


def _line(what: str, number: int) -> bytes:
    return f"{what} {number}{f' {DIGEST}' if what == 'done' else ''}\n".encode()


def _model(records: list[tuple[str, int]]) -> list[int]:
    safe: set[int] = set()
    for what, number in records:
        safe = safe - {number} if what == "redo" else safe | {number}
    return sorted(safe)


@settings(max_examples=60)
@given(records=RECORDS, data=st.data())
def test_any_prefix_replays_to_a_prefix_of_the_records(
    records: list[tuple[str, int]], data: st.DataObject
) -> None:
    """A journal cut at any byte, with any tail, replays the whole records before the cut."""
    lines = [_line(what, number) for what, number in records]
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    rest = data.draw(st.sampled_from([b"", bytes(64), b"\xff\n" * 9]))
    whole = 0
    while sum(map(len, lines[: whole + 1])) <= cut and whole < len(lines):
        whole += 1

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "journal"
        assert _replayed(path, content[:cut] + rest) == _model(records[:whole])
        assert path.read_bytes() == b"".join(lines[:whole])


@settings(max_examples=40)
@given(records=RECORDS)
def test_what_is_recorded_is_what_is_replayed(records: list[tuple[str, int]]) -> None:
    """Memory and file agree after any records in any order."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "journal"
        journal = Journal(str(path), FRAMES)
        for what, number in records:
            if what == "done":
                journal.done([(number, DIGEST)])
            elif what == "kept":
                journal.carried([(number, None)], [])
            else:
                journal.redo([number])
        in_memory = [number for number in range(FRAMES) if number in journal]
        journal.close()

        assert in_memory == _model(records) == _replayed(path, path.read_bytes())


def test_held_is_known_and_not_safe(tmp_path: Path) -> None:
    """A held frame is not safe, and its bytes can be requested by digest after a restart too."""
    path, other = tmp_path / "journal", DIGEST[::-1]
    journal = Journal(str(path), FRAMES)
    journal.carried([(1, DIGEST), (2, None)], [(3, DIGEST), (4, DIGEST), (5, DIGEST)])
    journal.done([(4, other)])
    journal.redo([5])
    journal.close()
    for each in (journal, Journal(str(path), FRAMES)):
        assert [each.tag(number) for number in range(6)] == [
            None, DIGEST, None, DIGEST, other, None
        ]  # fmt: skip
        assert [number for number in range(FRAMES) if number in each] == [1, 2, 4]
    journal.close()
    assert _replayed(path, path.read_bytes()) == [1, 2, 4]


_FULL = """
import os, sys
from bench.processes import peak_kib
from initpuller.volume.records.journal import Journal, count_done

path, frames = sys.argv[1], int(sys.argv[2])
before = peak_kib(os.getpid())
journal = Journal(path, frames)
journal.done([(0, journal.tag(1))])
assert len(journal) == count_done(path, frames) == frames
print(peak_kib(os.getpid()) - before)
"""


def test_journal_of_a_terabyte_fits_into_memory(tmp_path: Path) -> None:
    """A pod that has got a terabyte is not killed for its memory, which each restart needs again.

    With a string for each frame, 10 TB took 560 MB: half of the limit in the chart's values.
    """
    path, frames = tmp_path / "journal", 250_000
    path.write_bytes(b"".join(b"done %d %064x\n" % (number, number) for number in range(frames)))
    command: list[str | Path] = [sys.executable, "-c", _FULL, path, str(frames)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert int(done.stdout) * 1024 < 60 * frames


def test_tags_are_those_that_were_recorded(tmp_path: Path) -> None:
    """A block is not compared with the digest of another one, nor with one that is outdated."""
    path, last = tmp_path / "journal", FRAMES - 1
    journal = Journal(str(path), FRAMES)
    journal.carried([(0, DIGEST)], [(last, DIGEST), (2, ""), (3, DIGEST)])
    journal.done([(1, DIGEST[::-1])])
    journal.redo([0, 3])
    for each in (journal, Journal(str(path), FRAMES)):
        expected = [None, DIGEST[::-1], "", None, None, None, None, DIGEST]
        assert list(map(each.tag, range(FRAMES))) == expected
        assert list(each.held()) == [2, last]
        each.close()
