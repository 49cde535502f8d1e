"""Versions of Plex are read in every spelling, and ordered by their numbers alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.plex.version import PlexVersion, find_version

_numbers = st.tuples(*[st.integers(0, 99_999)] * 4)
_builds = st.from_regex(r"[0-9a-f]{9}", fullmatch=True) | st.just("")
versions = st.builds(PlexVersion, _numbers, _builds)


@given(versions)
def test_version_is_read_back(version: PlexVersion) -> None:
    """A version is read from a tag, a package's version and a log line."""
    for text in (f"{version}", f"v{version}", f"Plex Media Server v{version} - Ubuntu PC x86_64"):
        found = find_version(text)
        assert found == version
        assert found.build == version.build


@given(versions, versions, versions)
def test_order_is_total(one: PlexVersion, two: PlexVersion, three: PlexVersion) -> None:
    """Versions have a total order by numbers."""
    assert (one < two) + (two < one) + (one == two) == 1
    assert (one < two) == (one.numbers < two.numbers)
    if one <= two <= three:
        assert one <= three


@given(_numbers, st.integers(0, 3), st.integers(1, 1000), _builds, _builds)
def test_higher_number_is_newer(
    numbers: tuple[int, int, int, int], place: int, more: int, build: str, other: str
) -> None:
    """A higher number in any place is newer, whatever the build's hash."""
    higher = list(numbers)
    higher[place] += more
    newer = PlexVersion((higher[0], higher[1], higher[2], higher[3]), other)
    assert PlexVersion(numbers, build) < newer
    assert PlexVersion(numbers, build) == PlexVersion(numbers, other)


@pytest.mark.parametrize(
    ("older", "newer"),
    [("1.9.0.4252", "1.40.1.8227"), ("1.40.1.8227-ffffffff", "1.40.2.8395-00000000")],
)
def test_versions_of_plex(older: str, newer: str) -> None:
    """Real versions are in order where their letters are not."""
    one, two = find_version(older), find_version(newer)
    assert one is not None
    assert two is not None
    assert one < two


@pytest.mark.parametrize("text", ["", "latest", "1.40", "public", "beta-1.2.3"])
def test_invalid_version_is_refused(text: str) -> None:
    """A tag such as ``latest`` is no version."""
    assert find_version(text) is None
