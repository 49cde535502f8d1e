"""The accelerator accepts no manifest that Python refuses, and plans the same frames."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig.any_manifest import ROOT, any_manifest
from rig.damage import damaged
from rig.hostile.agent import entry, folder, symlink

from initpuller.pull.checks.placement import PlexContents
from initpuller.volume.fitness.requirements import Needs
from shared.errors import IntegrityError, ManifestTooLarge
from shared.frames import manifest_file, plan
from shared.frames.manifest_file import Watch, read_manifest, write_manifest
from shared.frames.plan import FRAME, FramePlan
from shared.native import native
from shared.tree import line_file
from shared.tree.line_file import LineWriter
from shared.tree.manifest import START, Entry, format_line

if native is None:
    pytest.skip("the accelerator is not installed", allow_module_level=True)

_pieces = st.integers(1, 3000)
"""Bytes of lines in a piece."""


@settings(max_examples=60)
@given(any_manifest(), _pieces)
def test_manifest_of_any_tree(tree: list[Entry], piece: int) -> None:
    """A manifest is written and read with the same plan, and its reader learns the same."""
    lines = list(map(format_line, tree))
    expected = FramePlan()
    for each in tree:
        expected.add(each)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(line_file, "PIECE", piece)
        written = write_manifest(os.path.join(folder, "m"), ROOT, tree)
        assert vars(written.plan) == vars(expected)
    found = _outcome(lines, piece)
    assert found == _outcome(lines, piece, in_python=True)
    assert found[0] == vars(expected)


@settings(max_examples=100)
@given(any_manifest(odd=False), st.integers(0, 10))
def test_usual_entries_are_not_left_to_python(tree: list[Entry], cut: int) -> None:
    """Both halves of a usual manifest are accepted, wherever it is cut."""
    assert native is not None
    lines = list(map(format_line, tree))
    place: tuple[int, bytes, bool] = START
    for part in (lines[:cut], lines[cut:]):
        if part:
            found = native.check(b"".join(part), place, ROOT, None, None)
            assert found is not None
            place = found[1]


FIELDS: dict[str, list[object]] = {
    "path": [
        *("Library", "Library/a/b/c", "Library/a//b", "Library/..", "Library/a/", "Libraryx/a", ""),
        *("Library/" + "n" * 256, "Library/nul\0", "/etc", 7, None, "Library\0/a", "\ud800"),
    ],
    "kind": ["dir", "file", "symlink", "hardlink", "fifo", {"file": None}, "File"],
    "mode": [-1, 0o7777, 0o10000, 1.0, True, "420", None],
    "uid": [2**32 - 2, 2**32 - 1, 2**32, -1, 1.5],
    "gid": [2**32 - 1, -1],
    "mtime_ns": [-1, 2**63, 2**64, -(2**64), 1e3, None],
    "ctime_ns": [-(2**70), 2**64, 0.5],
    "inode": [-1, 2**64, 0],
    "size": [0, 1, 2**40, 2**62 - 1, 2**62, -1, None],
    "data": [0, 2**62, -1, None],
    "link": ["", "Library", "../../..", "t" * 4096, "nul\0", "Library/zzz", None],
    "kept": [True, False, 0, None],
    "xattrs": [{}, {"user.x": ""}, {"system.x": ""}],
    "path_b64": ["", "TGlicmFyeS9h", "%"],
    "link_b64": ["", "YQ=="],
    "device": [1],
}


@st.composite
def _hostile_lines(draw: st.DrawFn) -> list[bytes]:
    """Return the lines of a manifest with a few changes that an agent may have made."""
    lines = list(map(format_line, draw(any_manifest(odd=draw(st.booleans())))))
    changes = st.sampled_from(["field", "field", "field", "move", "copy", "drop", "wound"])
    for change in sorted(draw(st.lists(changes, min_size=1, max_size=2))):
        at = draw(st.integers(0, len(lines) - 1))
        if change == "field":
            line = json.loads(lines[at])
            name = draw(st.sampled_from(sorted(FIELDS)))
            line[name] = draw(st.sampled_from(FIELDS[name]))
            lines[at] = json.dumps(line, ensure_ascii=draw(st.booleans())).encode(
                errors="surrogatepass"
            )
            lines[at] += b"\n"
        elif change == "wound":  # the last one: the line may be no JSON after it
            lines[at] = draw(damaged(lines[at]))
        elif change == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
        elif change == "copy":
            lines.insert(at, lines[at])
        elif len(lines) > 1:
            del lines[at]
    return lines


@settings(max_examples=120)
@given(_hostile_lines(), _pieces)
def test_hostile_manifest(lines: list[bytes], piece: int) -> None:
    """A changed manifest is refused with the same error, or is read as Python reads it."""
    _compare(lines, piece)


@pytest.mark.parametrize("name", FIELDS)
def test_each_value_of_a_field(name: str) -> None:
    """A value that a field may not have is refused, on a folder, a file and a symlink."""
    tree = [folder(ROOT), entry(b"Library/a", size=10), symlink(b"Library/b", b"a")]
    for at in range(len(tree)):
        for value in FIELDS[name]:
            lines = list(map(format_line, tree))
            line = json.dumps(json.loads(lines[at]) | {name: value}, ensure_ascii=False)
            lines[at] = line.encode(errors="surrogatepass") + b"\n"
            _compare(lines, 3000)


LINE = format_line(entry(b"Library/a", size=10))
FORMS = {
    "array": b'["Library/a","file",420,0,0,1,1,1]\n',
    "kind_as_object": LINE.replace(b'"file"', b'{"file":null}'),
    "field_twice": LINE.replace(b'"mode"', b'"kind":"dir","mode"'),
    "escaped_name_of_a_field": LINE.replace(b'"mode"', b'"\\u006dode"'),
    "escaped_path": LINE.replace(b"Library/a", b"Library\\/a"),
    "escaped_nul": LINE.replace(b"Library/a", b"Library/\\u0000"),
    "blanks": LINE.replace(b",", b" ,\t"),
    "carriage_return_between_values": LINE.replace(b",", b",\r"),
    "carriage_return_at_the_end": LINE.replace(b"\n", b"\r\n"),
    "two_in_a_line": LINE.replace(b"\n", b"") + LINE,
    "empty_line": b"\n" + LINE,
    "form_feed": LINE.replace(b",", b",\f"),
    "byte_order_mark": b"\xef\xbb\xbf" + LINE,
    "number_with_exponent": LINE.replace(b":10", b":1e1"),
    "negative_zero": LINE.replace(b":10", b":-0"),
    "leading_zero": LINE.replace(b":10", b":010"),
    "not_utf8": LINE.replace(b"Library/a", b"Library/\xe9"),
    "overlong_utf8": LINE.replace(b"Library/a", b"Library/\xc0\xaf"),
    "control_character": LINE.replace(b"Library/a", b"Library/\x01"),
    "line_too_long": LINE.replace(b",", b"," + b" " * 2**20),
    "no_newline": LINE.strip(),
}


@pytest.mark.parametrize("line", FORMS.values(), ids=FORMS.keys())
def test_unusual_json(line: bytes) -> None:
    """JSON in a form that we never write is read as Python reads it."""
    for lines in ([format_line(folder(ROOT)), line], [line]):
        _compare(lines, 3000)


REFUSED = {
    "carriage_return": LINE.replace(b",", b",\r"),
    "highest_uid": LINE.replace(b'"uid":0', b'"uid":4294967295'),
    "highest_gid": LINE.replace(b'"gid":0', b'"gid":4294967295'),
    "size": LINE.replace(b":10", b":4611686018427387904"),
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED.keys())
def test_no_function_reads_a_line_that_python_refuses(line: bytes) -> None:
    """Functions that get checked lines do not read others either."""
    assert native is not None
    assert native.sums(LINE, b"d" * 32) is not None
    assert native.sums(line, b"d" * 32) is None
    assert native.plan(LINE, None) is not None
    assert native.plan(line, None) is None


def _deep(levels: int) -> list[Entry]:
    return [folder(b"Library" + b"/d" * level) for level in range(levels)]


LIMITS = {
    "deepest": (_deep(256), True),
    "too_deep": (_deep(257), False),
    "longest_path": ([folder(b"/".join([b"Library", *[b"n" * 255] * n])) for n in range(64)], True),
    "path_too_long": (
        [folder(b"/".join([b"Library", *[b"n" * 255] * n])) for n in range(65)],
        False,
    ),
    "longest_target": ([folder(ROOT), symlink(b"Library/a", b"t" * 4095)], True),
    "target_too_long": ([folder(ROOT), symlink(b"Library/a", b"t" * 4096)], False),
    "below_a_file": ([folder(ROOT), entry(b"Library/a"), entry(b"Library/a/b")], False),
    "below_a_like_name": ([folder(ROOT), folder(b"Library/ab"), entry(b"Library/a/b")], False),
    "one_kept_and_one_not": (
        [folder(ROOT), *(entry(b"Library/" + n, mode=0o600, kept=n == b"a") for n in (b"a", b"b"))],
        True,
    ),
    "second_link_that_leads_out": (
        [folder(ROOT), symlink(b"Library/a", b"target"), symlink(b"Library/b", b"/etc")],
        True,
    ),
    "root_is_a_file": ([entry(ROOT)], False),
    "name_too_long": ([folder(ROOT), entry(b"Library/" + b"n" * 256)], False),
    "dots": ([folder(ROOT), folder(b"Library/..")], False),
    "nobody": ([folder(ROOT), entry(b"Library/a", uid=2**32 - 2)], True),
    "other_root": ([folder(b"Other"), entry(b"Other/a")], False),
    "many_frames": ([folder(ROOT), entry(b"Library/a", size=(2**24 - 10) * FRAME)], True),
    "too_many_frames": ([folder(ROOT), entry(b"Library/a", size=2**24 * FRAME)], False),
}


@pytest.mark.parametrize(("tree", "is_legal"), LIMITS.values(), ids=LIMITS.keys())
@pytest.mark.parametrize("piece", [1, 2**18])
def test_limits(tree: list[Entry], is_legal: bool, piece: int) -> None:  # noqa: FBT001
    """An entry at a limit is accepted, and one beyond it is refused."""
    lines = list(map(format_line, tree))
    assert _compare(lines, piece) is is_legal


def _compare(lines: list[bytes], piece: int) -> bool:
    """Read ``lines`` with and without the accelerator; return whether they are accepted.

    It must not accept what Python refuses, also if no reader parses the lines after it.
    """
    assert native is not None
    expected = _outcome(lines, piece, in_python=True)
    is_accepted = isinstance(expected[0], dict)
    assert _outcome(lines, piece) == expected
    alone = native.check(b"".join(lines), START, ROOT, None, None)
    assert alone is None or is_accepted or expected[0] is ManifestTooLarge
    return is_accepted


def _outcome(lines: list[bytes], piece: int, *, in_python: bool = False) -> tuple[Any, ...]:
    """Return all that is known after the manifest is read, or the type and text of the error."""
    contents, needs = PlexContents("Library", "/x/Library"), Needs()
    contents.top = b"Library/b"
    later = Needs()

    def see(entry: Entry) -> None:
        contents.add(entry)
        needs.take(entry)
        if not entry.kept:
            later.take(entry)

    watch = Watch(see, contents.top, contents.paths)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        if in_python:
            for module in (manifest_file, plan):
                patched.setattr(module, "native", None)
        patched.setattr(line_file, "PIECE", piece)
        path = os.path.join(folder, "m")
        with LineWriter(path) as writer:
            for line in lines:
                writer.add_lines(line)
            writer.sync()
        name = hashlib.sha256(b"".join(lines)).hexdigest()
        try:
            manifest = read_manifest(path, name, ROOT, watch=watch)
        except IntegrityError as error:
            return type(error), str(error).replace(path, "")
        learned = contents.links_out, contents.some_links_out, needs, later
        return vars(manifest.plan), list(manifest), *learned
