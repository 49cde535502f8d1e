"""The frame plan covers the archive exactly, and large files are cut at places of their own."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rig.frame_plan import plan
from rig.hostile.agent import entry, folder, frame_tars, hardlink, symlink

from shared.errors import ManifestTooLarge
from shared.frames.plan import FRAME, MAX_FRAMES, FramePlan, is_large, members
from shared.frames.tar_layout import END_OF_ARCHIVE, header, header_size, padded

if TYPE_CHECKING:
    from shared.tree.manifest import Entry

_sizes = st.one_of(
    st.integers(0, 3000),
    st.integers(0, 5 * FRAME),
    st.builds(lambda n, off: max(0, n * FRAME + off), st.integers(1, 6), st.integers(-1030, 1030)),
)


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """Return files of any size, folders and links, with short and long names."""
    tree = [folder(b"Library")]
    for number, what in enumerate(draw(st.lists(st.sampled_from("FFFFdsh"), max_size=25))):
        path = b"Library/%03d" % number + b"n" * draw(st.sampled_from([0, 0, 85, 90, 250]))
        if what == "F":
            xattrs = draw(st.sampled_from([{}, {}, {"user.x": bytes(30_000)}]))
            tree.append(entry(path, size=draw(_sizes), xattrs=xattrs))
        elif what == "d":
            tree.append(folder(path))
        elif what == "s":
            tree.append(symlink(path, b"t" * draw(st.integers(1, 300))))
        else:
            tree.append(hardlink(path, b"Library"))
    return tree


def whole_size(tree: list[Entry]) -> int:
    """Return the size of the archive, computed without frames."""
    return sum(len(header(each)) + padded(each.size) for each in tree) + len(END_OF_ARCHIVE)


@given(trees())
def test_frames_cover_the_archive_exactly(tree: list[Entry]) -> None:
    """Each header and each byte of content is in one frame, in order, once."""
    frames = list(plan(tree))

    assert sum(frame.size for frame in frames) == whole_size(tree)
    largest_header = max(header_size(entry) for entry in tree)
    reached: list[tuple[int, int]] = []
    for number, frame in enumerate(frames):
        assert frame.number == number
        assert 0 < frame.size <= FRAME + largest_header + len(END_OF_ARCHIVE)
        position = 0
        for member in members(frame, tree[frame.first : frame.first + frame.count]):
            assert member.start == position
            assert member.entry is tree[member.number]
            own = header_size(member.entry) if member.offset == 0 else 0
            assert member.content == member.start + own
            position = member.content + padded(member.length)
            reached.append((member.number, member.offset))
            if member.offset:
                assert reached[-2] == (member.number, member.offset - FRAME)
            ends = member.offset + member.length
            assert ends == member.entry.size or (is_large(member.entry) and ends % FRAME == 0)
        assert position == frame.size - (len(END_OF_ARCHIVE) if frame is frames[-1] else 0)
    assert reached == sorted(set(reached))
    assert {number for number, _ in reached} == set(range(len(tree)))


@given(trees())
def test_frames_are_full(tree: list[Entry]) -> None:
    """Two neighboring packed frames would not fit into one."""
    frames = list(plan(tree))
    for this, following in pairwise(frames):
        both = tree[this.first], tree[following.first]
        if not any(map(is_large, both)):
            head = header_size(both[1]) + padded(both[1].size)
            assert this.size + head > FRAME


@given(trees())
def test_frames_of_every_entry(tree: list[Entry]) -> None:
    """The frames listed for an entry are those that have it as a member."""
    planned = plan(tree)
    found: dict[int, list[int]] = {}
    for frame in planned:
        for member in members(frame, tree[frame.first : frame.first + frame.count]):
            found.setdefault(member.number, []).append(frame.number)
    assert {
        number: list(planned.frames_of(number, tree[number])) for number in range(len(tree))
    } == {number: found.get(number, []) for number in range(len(tree))}


@given(trees(), st.data())
def test_kept_entries_are_in_no_frame(tree: list[Entry], data: st.DataObject) -> None:
    """Kept entries are in no frame, and numbers stay those of the manifest."""
    kept = data.draw(st.lists(st.booleans(), min_size=len(tree), max_size=len(tree)))
    delta = [
        msgspec.structs.replace(each, kept=keep) for each, keep in zip(tree, kept, strict=True)
    ]
    planned, alone = plan(delta), plan([each for each in delta if not each.kept])
    assert [frame.size for frame in planned] == [frame.size for frame in alone]
    assert (planned.entries, planned.files) == (plan(tree).entries, plan(tree).files)
    for frame in planned:
        inside = delta[frame.first : frame.first + frame.count]
        for member in members(frame, inside):
            assert delta[member.number] is member.entry
            assert not member.entry.kept
    for number, each in enumerate(delta):
        assert bool(planned.frames_of(number, each)) != each.kept


@given(trees(), trees(), st.integers(FRAME + 1, 6 * FRAME))
def test_boundaries_of_a_large_file_are_its_own(
    before: list[Entry], after: list[Entry], size: int
) -> None:
    """A large file is cut at the same places of its content, for any neighbors."""
    large = entry(b"Library/large", size=size)

    def pieces(tree: list[Entry], number: int) -> list[tuple[int, int, int]]:
        planned = plan(tree)
        cut = []
        for frame in (planned[each] for each in planned.frames_of(number, tree[number])):
            (member,) = members(frame, tree[frame.first : frame.first + frame.count])
            cut.append((member.offset, member.length, member.content))
        return cut

    alone = pieces([large], 0)
    assert pieces([*before, large, *after], len(before)) == alone
    assert [offset for offset, _, _ in alone] == list(range(0, size, FRAME))


@settings(max_examples=12)
@given(trees())
def test_frames_one_after_the_other_are_the_tar(tree: list[Entry]) -> None:
    """The joined frames equal a tar written without frames."""
    assume(whole_size(tree) < 40 * FRAME)
    pattern = bytes(range(1, 252)) * (7 * FRAME // 251)
    contents = {each.path: pattern[: each.size] for each in tree if each.size}
    whole = b"".join(
        header(each) + contents.get(each.path, b"") + bytes(padded(each.size) - each.size)
        for each in tree
    )
    tars = frame_tars(tree, contents)
    assert [len(tar) for tar in tars] == [frame.size for frame in plan(tree)]
    is_same = b"".join(tars) == whole + END_OF_ARCHIVE  # not for pytest to show the difference
    assert is_same


@pytest.mark.parametrize(("size", "frames"), [(FRAME, 2), (FRAME + 1, 3), (2 * FRAME, 3)])
def test_file_around_one_frame(size: int, frames: int) -> None:
    """A file of one frame is packed, and one byte more is cut."""
    planned = plan([folder(b"Library"), entry(b"Library/a", size=size)])
    assert len(planned) == frames
    assert (planned.entries, planned.files, planned.content_bytes) == (2, 1, size)


def test_frame_number_out_of_range_is_refused() -> None:
    """A number past the end or below zero is refused."""
    planned = plan([folder(b"Library")])
    for number in (-1, 1, 10**9):
        with pytest.raises(IndexError):
            planned[number]


def test_more_frames_than_anybody_has() -> None:
    """A size whose plan would fill the memory is refused first."""
    planned = FramePlan()
    with pytest.raises(ManifestTooLarge):
        planned.add(entry(b"Library/a", size=MAX_FRAMES * FRAME))
    assert len(planned) == 0
