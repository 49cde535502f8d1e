"""Any sequence of ranges, clients, hang-ups and restarts gives the bytes of the one archive.

The oracle is the file downloaded whole, once, by a plain GET, from an agent that knew nothing.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
import threading
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rig.archive.archives import SUFFIXES
from rig.archive.in_process import InProcess

from shared.wire.protocol import archive_path, frame_path

FRAMES = 24
"""More than the agent keeps, so that some have to be made again."""
LENGTHS = [0, 1, 2, 300_000, 2_000_000, 4_194_303, 4_194_304, 4_194_305]


class Oracle:
    """One library, and each of its archives as it was downloaded whole."""

    def __init__(self, place: Path) -> None:
        self.library = place / "Library"
        self.library.mkdir(parents=True)
        content = random.Random(5)  # noqa: S311 - the same tree each time
        (self.library / "large").write_bytes(content.randbytes(6 * 4_194_304 + 17))
        for number in range(30):
            size = content.randrange(4_000_000)
            text = content.randbytes(size // 50) * 50
            (self.library / f"file{number:02}").write_bytes(text)
        self.whole: dict[str, bytes] = {}
        self.edges: dict[str, list[int]] = {}
        with InProcess(place / "oracle", self.library) as agent:
            self.snapshot = agent.client.snapshot()
            for suffix in SUFFIXES:
                self.whole[suffix] = agent.client.ask(archive_path(self.snapshot, suffix)).body
                edges, number = [0], 0
                while edges[-1] < len(self.whole[suffix]):
                    frame = agent.client.ask(frame_path(self.snapshot, number, suffix))
                    edges.append(edges[-1] + len(frame.body))
                    number += 1
                assert number >= FRAMES
                self.edges[suffix] = edges

    def position(self, data: st.DataObject, suffix: str) -> int:
        """Draw an offset of the archive, often near a frame's edge, sometimes past the end."""
        size = len(self.whole[suffix])
        beside = st.builds(
            lambda edge, off: max(0, edge + off),
            st.sampled_from(self.edges[suffix]),
            st.integers(-2, 2),
        )
        return data.draw(st.one_of(st.integers(0, size), beside))


@cache
def oracle() -> Oracle:
    """Make the oracle once for all runs."""
    return Oracle(Path(tempfile.mkdtemp(prefix="plexodus-oracle-")))


suffixes = st.sampled_from(SUFFIXES)


class ArchiveMachine(RuleBasedStateMachine):
    """Clients of one agent that is restarted now and then."""

    @initialize()
    def begin(self) -> None:
        """Start an agent without an index."""
        self.oracle = oracle()
        self.state = Path(tempfile.mkdtemp(prefix="plexodus-state-"))
        self.agent = InProcess(self.state, self.oracle.library)
        self.agent.__enter__()
        assert self.agent.client.snapshot() == self.oracle.snapshot
        self.tags: dict[str, str] = {}
        self.restarts = 0
        self.failures: list[str] = []

    def teardown(self) -> None:
        """Stop it and remove its files."""
        if hasattr(self, "agent"):
            self.agent.__exit__()
            shutil.rmtree(self.state)

    @rule(suffix=suffixes, data=st.data())
    def fetch_range(self, suffix: str, data: st.DataObject) -> None:
        """Fetch a range, sometimes with the entity tag of an earlier response."""
        first = self.oracle.position(data, suffix)
        length = data.draw(st.one_of(st.sampled_from(LENGTHS), st.integers(0, 5_000_000)))
        self.check(suffix, f"{first}-{first + length}", first, first + length + 1)

    @rule(suffix=suffixes, data=st.data())
    def fetch_open_ended(self, suffix: str, data: st.DataObject) -> None:
        """Fetch from an offset to the end."""
        first = self.oracle.position(data, suffix)
        self.check(suffix, f"{first}-", first, None)

    @rule(suffix=suffixes, data=st.data())
    def fetch_suffix(self, suffix: str, data: st.DataObject) -> None:
        """Fetch the last bytes."""
        size = len(self.oracle.whole[suffix])
        count = size - min(size, self.oracle.position(data, suffix))
        self.check(suffix, f"-{count}", size - count, None)

    @rule(suffix=suffixes)
    def fetch_whole(self, suffix: str) -> None:
        """Fetch everything by a plain GET."""
        self.check(suffix, None, 0, None)

    @rule(suffix=suffixes, wants=st.booleans())
    def head(self, suffix: str, wants: bool) -> None:  # noqa: FBT001 - drawn
        """Request the length, and the digest if drawn."""
        headers = [("Want-Repr-Digest", "sha-256=1")] if wants else []
        path = archive_path(self.oracle.snapshot, suffix)
        answer = self.agent.client.ask(path, headers, method="HEAD")
        assert answer.status == 200
        assert answer.headers["Content-Length"] == str(len(self.oracle.whole[suffix]))
        assert "Repr-Digest" in answer.headers or not wants
        self.look_at(suffix, answer.headers)

    @rule(suffix=suffixes, data=st.data(), share=st.floats(0, 1))
    def hang_up(self, suffix: str, data: st.DataObject, share: float) -> None:
        """Read a part of a response, then close the connection."""
        first = min(self.oracle.position(data, suffix), len(self.oracle.whole[suffix]) - 1)
        headers = [("Range", f"bytes={first}-")] if data.draw(st.booleans()) else []
        start = first if headers else 0
        count = int((len(self.oracle.whole[suffix]) - start) * share)
        path = archive_path(self.oracle.snapshot, suffix)
        with self.agent.client.opened(path, headers) as response:
            got = response.read(count)
        is_same = got == self.oracle.whole[suffix][start : start + count]
        assert is_same

    @precondition(lambda self: self.restarts < 4)
    @rule()
    def restart(self) -> None:
        """Restart the agent, so that all in memory is lost."""
        self.agent.restart()
        self.restarts += 1

    @rule(
        what=st.lists(st.tuples(suffixes, st.integers(1, 8), st.booleans()), min_size=2, max_size=6)
    )
    def many_at_once(self, what: list[tuple[str, int, bool]]) -> None:
        """Fetch segments by concurrent clients, some of which begin at another's frame."""

        def fetch(suffix: str, eighth: int, is_segment: bool) -> None:  # noqa: FBT001 - drawn
            size = len(self.oracle.whole[suffix])
            first, stop = (eighth - 1) * size // 8, eighth * size // 8
            try:
                if is_segment:
                    self.check(suffix, f"{first}-{stop - 1}", first, stop)
                else:
                    self.check(suffix, f"{first}-", first, None)
            except Exception as error:  # noqa: BLE001 - told where it is looked at
                self.failures.append(repr(error))

        clients = [threading.Thread(target=fetch, args=each) for each in what]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def check(self, suffix: str, asked: str | None, start: int, stop: int | None) -> None:
        """Send the request, and compare bytes, size, position and digests with the oracle."""
        whole = self.oracle.whole[suffix]
        path = archive_path(self.oracle.snapshot, suffix)
        headers = [] if asked is None else [("Range", f"bytes={asked}")]
        answer = self.agent.client.ask(path, headers)
        expected = whole[start:stop]
        if asked is not None and not expected:
            assert answer.status == 416
            assert answer.headers["Content-Range"] == f"bytes */{len(whole)}"
            return
        is_same = answer.body == expected
        assert (answer.status, is_same) == (200 if asked is None else 206, True)
        if asked is not None:
            place = f"bytes {start}-{start + len(expected) - 1}/{len(whole)}"
            assert answer.headers["Content-Range"] == place
        if "Content-Digest" in answer.headers:
            assert answer.headers["Content-Digest"] == digest(expected)
        self.look_at(suffix, answer.headers)

    def look_at(self, suffix: str, headers: Any) -> None:  # noqa: ANN401 - a message
        """Require that the headers about the whole archive are constant and true."""
        assert self.tags.setdefault(suffix, headers["ETag"]) == headers["ETag"]
        if "Repr-Digest" in headers:
            assert headers["Repr-Digest"] == digest(self.oracle.whole[suffix])

    @invariant()
    def nothing_failed(self) -> None:
        """No client that ran in parallel failed, and tags of different encodings differ."""
        failures = getattr(self, "failures", [])
        assert failures == []
        tags = getattr(self, "tags", {})
        assert len(set(tags.values())) == len(tags)


def digest(body: bytes) -> str:
    """As RFC 9530 spells it."""
    return f"sha-256=:{b64encode(hashlib.sha256(body).digest()).decode()}:"


def run(examples: int, steps: int) -> None:
    """Run so many sequences of so many steps."""
    try:
        run_state_machine_as_test(
            ArchiveMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        shutil.rmtree(oracle().library.parent)
        oracle.cache_clear()


def test_any_sequence_gives_the_one_archive() -> None:
    """A few sequences, each with a fresh agent, give the bytes of the one archive."""
    run(examples=6, steps=12)


@pytest.mark.long
def test_any_long_sequence_gives_the_one_archive() -> None:
    """Many long sequences give the bytes of the one archive."""
    run(examples=25, steps=30)
