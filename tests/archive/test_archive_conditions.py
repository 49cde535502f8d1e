"""Conditions on archives are evaluated before ranges, in the order of RFC 9110 section 13."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.archive.archives import SUFFIXES, Archives, fill
from rig.archive.in_process import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archives]:
    """Start one agent for the tests that only read, with each archive complete."""
    place = tmp_path_factory.mktemp("archives")
    fill(place / "Library")
    with InProcess(place / "state", place / "Library") as agent:
        yield Archives(agent)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_if_range(archives: Archives, suffix: str) -> None:
    """A range is answered for the strong tag and nothing else (RFC 9110 section 13.1.5)."""
    tag = archives.tag[suffix]
    expected = {
        tag: 206,
        f"  {tag} ": 206,
        f"W/{tag}": 200,
        tag.strip('"'): 200,
        '"another"': 200,
        f'"another", {tag}': 200,
        "*": 200,
        "": 200,
        "Sat, 29 Oct 2044 19:43:31 GMT": 200,
        archives.tag["tar" if suffix != "tar" else "tar.gz"]: 200,
    }
    for value, status in expected.items():
        answer = archives.get(suffix, ("Range", "bytes=5-8"), ("If-Range", value))
        assert answer.status == status, value
        is_right = (
            answer.body == archives.whole[suffix][slice(5, 9) if status == 206 else slice(0, None)]
        )
        assert is_right, value
        beyond = archives.get(suffix, ("Range", "bytes=-0"), ("If-Range", value))
        assert beyond.status == (416 if status == 206 else 200), value


def test_if_none_match(archives: Archives) -> None:
    """A weak match gets 304 without a body, also for an unsatisfiable range."""
    tag = archives.tag["tar.gz"]
    known: list[list[str]] = [
        [tag],
        [f"W/{tag}"],
        ["*"],
        [f'"x", {tag}'],
        [f'"x",W/{tag} , "y"'],
        ['"x"', tag],
        [tag, '"x"'],
        [f' ,, "with,comma", {tag},'],
    ]
    for lines in known:
        conditions = [("If-None-Match", line) for line in lines]
        for more in ([], [("Range", "bytes=0-1")], [("Range", "bytes=-0")], [("If-Match", tag)]):
            for method in ("GET", "HEAD"):
                answer = archives.get("tar.gz", *conditions, *more, method=method)
                assert (answer.status, answer.body) == (304, b""), (lines, more)
                assert answer.headers["ETag"] == tag
                assert "Content-Range" not in answer.headers
    for other in ('"x"', tag.strip('"'), f"W/{archives.tag['tar']}", tag.upper(), '""', "", "x"):
        assert archives.status(("If-None-Match", other)) == 200, other
        assert archives.status(("If-None-Match", other), ("Range", "bytes=0-1")) == 206, other


def test_if_match(archives: Archives) -> None:
    """A failed strong comparison gets 412 before everything else."""
    tag = archives.tag["tar.gz"]
    for lines in ([tag], ["*"], [f'"x", {tag}'], ['"x"', tag], [tag, "W/" + tag]):
        conditions = [("If-Match", line) for line in lines]
        assert archives.status(*conditions) == 200, lines
        assert archives.status(*conditions, ("Range", "bytes=0-1")) == 206, lines
        assert archives.status(*conditions, ("Range", "bytes=-0")) == 416, lines
    for lines in ([f"W/{tag}"], ['"x"'], ['"x"', '"y"'], [tag.strip('"')], [""], ["W/*"]):
        conditions = [("If-Match", line) for line in lines]
        others = [("Range", "bytes=0-1"), ("Range", "bytes=-0"), ("If-None-Match", tag)]
        for more in ([], *([other] for other in others)):
            answer = archives.get("tar.gz", *conditions, *more)
            assert (answer.status, answer.problem().status) == (412, 412), (lines, more)
            assert archives.status(*conditions, *more, method="HEAD") == 412


def test_conditions_with_dates_neither_hold_nor_hinder(archives: Archives) -> None:
    """Dates are ignored, because no archive has one (RFC 9110 sections 13.1.3 and 13.1.4)."""
    for name in ("If-Modified-Since", "If-Unmodified-Since"):
        for year in (1994, 2094):
            date = f"Sun, 06 Nov {year} 08:49:37 GMT"
            answer = archives.get("tar.gz", (name, date))
            assert answer.status == 200
            assert "Last-Modified" not in answer.headers
