"""A comparison of two snapshots with the accelerator finds what Python alone finds."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.any_manifest import ROOT, any_manifest

from initpuller.volume.records.journal import Journal
from initpuller.volume.reuse import cursor, matching
from initpuller.volume.reuse.matching import compare
from initpuller.volume.reuse.recorded import DAMAGED, Listing, Recorded
from shared.errors import SnapshotGone
from shared.frames.file_digests import FileDigests
from shared.frames.manifest_file import write_manifest
from shared.native import native
from shared.tree import line_file
from shared.tree.manifest import Entry, Kind, format_line, parse_line
from shared.tree.member_path import sort_key
from shared.tree.racy import Steadiness
from shared.wire.protocol import Library, Snapshot

if TYPE_CHECKING:
    from shared.frames.manifest_file import ManifestFile

if native is None:
    pytest.skip("the accelerator is not installed", allow_module_level=True)


@st.composite
def _changed(draw: st.DrawFn, tree: list[Entry]) -> list[Entry]:
    """Return a later scan of ``tree``: most of it kept, some of it other, gone or new."""
    later = {entry.path: entry for entry in tree}
    for entry in tree:
        happened = draw(st.sampled_from([*["kept"] * 8, "same", "touched", "other", "gone", "new"]))
        if happened == "kept":
            later[entry.path] = msgspec.structs.replace(entry, kept=True)
        elif happened == "touched":
            later[entry.path] = msgspec.structs.replace(entry, ctime_ns=7, kept=draw(st.booleans()))
        elif happened == "other" and entry.kind is Kind.FILE:
            link = {"kind": Kind.SYMLINK, "size": 0, "data": None, "link": b"other"}
            later[entry.path] = msgspec.structs.replace(entry, **link)
        elif happened == "gone" and entry.kind is not Kind.DIRECTORY:
            del later[entry.path]
        elif happened == "new" and entry.kind is Kind.DIRECTORY:
            path = entry.path + draw(st.sampled_from([b"/", b"/aaa", b"/zzz"])) + b"new"
            later[path] = msgspec.structs.replace(tree[0], path=path, kept=draw(st.booleans()))
    return [later[path] for path in sorted(later, key=sort_key)]


@settings(max_examples=80)
@given(any_manifest(), st.data())
def test_comparison_of_any_two_snapshots(tree: list[Entry], data: st.DataObject) -> None:
    """The same files stay, are fetched and are removed, or the delta is refused both times."""
    later = data.draw(_changed(tree))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(line_file, "PIECE", data.draw(st.integers(1, 3000)))
        patched.setattr(matching, "_STEPS", data.draw(st.sampled_from([1, 3])))
        before = write_manifest(os.path.join(folder, "before"), ROOT, tree)
        after = write_manifest(os.path.join(folder, "after"), ROOT, later)
        digests = FileDigests(os.path.join(folder, "digests"), len(tree))
        of_files = st.sampled_from([*[b"d" * 32] * 8, None, DAMAGED])
        known = [data.draw(of_files) if each.kind is Kind.FILE else None for each in tree]
        digests.put(enumerate(known))
        journal = Journal(os.path.join(folder, "journal"), len(before.plan))
        journal.done((number, "a" * 64) for number in range(len(before.plan)))
        if len(before.plan) and not data.draw(st.integers(0, 9)):
            journal.redo([data.draw(st.integers(0, len(before.plan) - 1))])
        old = Recorded(_snapshot(before, ""), before, journal, digests)
        new = Listing(_snapshot(after, data.draw(st.sampled_from([before.name] * 4 + [""]))), after)
        with old:
            found = _outcome(old, new)
            patched.setattr(cursor, "native", None)
            assert found == _outcome(old, new)


@given(any_manifest(odd=False))
def test_kept_entries_are_skipped_at_once(tree: list[Entry]) -> None:
    """A usual snapshot in which nothing has changed is one run, up to its last folder."""
    assert native is not None
    later = [msgspec.structs.replace(entry, kept=True) for entry in tree]
    lines, newer = (b"".join(map(format_line, each)) for each in (tree, later))
    count, older_size, size, folders = native.kept(lines, newer, b"d" * 32 * len(tree))
    assert (count, older_size, size) == (len(tree), len(lines), len(newer))
    inside = [entry for entry in later if entry.kind is Kind.DIRECTORY]
    last = tree[-1].path + b"/"
    expected = [entry for entry in inside if last.startswith(entry.path + b"/")]
    assert [parse_line(newer[start:end]) for _, start, end in folders] == expected
    assert [later[number] for number, _, _ in folders] == expected


@settings(max_examples=200)
@given(any_manifest(), st.data())
def test_what_counts_as_unchanged_is(tree: list[Entry], data: st.DataObject) -> None:
    """No entry is taken over that Python would not take over, and each has all that it had."""
    assert native is not None
    began = data.draw(st.integers(0, 2**31))
    created = datetime.fromtimestamp(began, UTC).isoformat(timespec="milliseconds")
    about = data.draw(st.sampled_from(["a", "x.db", "x.db-wal", "y.db.txt"])).encode()
    offsets = st.sampled_from([-4, -3, -2, 0]).map(lambda each: (began + each) * 10**9)
    ctimes = offsets.flatmap(lambda time: st.integers(time - 2, time + 2))
    tree = [msgspec.structs.replace(entry, ctime_ns=data.draw(ctimes)) for entry in tree]
    tree[-1] = msgspec.structs.replace(tree[-1], path=tree[-1].path + about)
    outside: dict[str, Any] = {"link": b"", "data": None, "xattrs": {}, "kept": False}
    later = [msgspec.structs.replace(entry, **outside) for entry in data.draw(_changed(tree))]
    steadiness = Steadiness(data.draw(st.sampled_from(["live", "cold"])), created)
    older, newer = (b"".join(map(format_line, each)) for each in (tree, later))

    found = native.unchanged(older, newer, steadiness.surely_before)
    looked = native.unchanged(older, newer, None)

    assert found is not None
    assert looked is not None
    count = found[2].count(b"\n")
    assert older[: found[0]].count(b"\n") == newer[: found[1]].count(b"\n") == count
    kept = [msgspec.structs.replace(entry, kept=True) for entry in tree[:count]]
    assert found[2] == b"".join(map(format_line, kept))
    pairs = list(zip(tree, later, strict=False))
    assert all(new.looks_like(old) and steadiness.holds(new) for old, new in pairs[:count])
    assert all(new.looks_like(old) for old, new in pairs[: newer[: looked[1]].count(b"\n")])


def _snapshot(manifest: ManifestFile, base: str) -> Snapshot:
    plan, library = manifest.plan, Library("id", "Library", "vm", "/x/Library")
    created = "2026-01-01T00:00:00.000+00:00"
    sums = plan.entries, plan.files, plan.content_bytes, len(plan)
    return Snapshot(manifest.name, "live", library, created, *sums, 1, [], base)


def _outcome(old: Recorded, new: Listing) -> Any:  # noqa: ANN401 - only compared
    try:
        reuse = compare(old, new)
    except SnapshotGone as error:
        return str(error)
    return reuse.kept, reuse.held, list(reuse.same), reuse.changes
