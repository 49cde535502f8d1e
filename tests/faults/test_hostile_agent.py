"""Each lie of a hostile agent is refused with its own error, and nothing outside changes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from rig.hostile.agent import (
    Reply,
    entry,
    folder,
    hardlink,
    offer_lines,
    offer_tree,
    packed,
    refused,
    symlink,
)
from rig.hostile.bombs import zstd_bomb

from shared import errors
from shared.program.exit_codes import ExitCode
from shared.tree.manifest import MAX_LINE, Entry, format_line

if TYPE_CHECKING:
    from pathlib import Path

    from rig.hostile.agent import HostileAgent


TOP = folder(b"Library")
OUTSIDE = b"../../../../outside"
"""From a symlink in the library in staging."""
GIB = 1024**3


NAMES = {
    "dot_dot": (entry(b"Library/../escaped"), errors.IllegalPath),
    "dot_dot_at_the_end": (folder(b"Library/.."), errors.IllegalPath),
    "dot": (entry(b"Library/./file"), errors.IllegalPath),
    "absolute": (entry(b"/etc/escaped"), errors.IllegalPath),
    "empty_component": (entry(b"Library//file"), errors.IllegalPath),
    "slash_at_the_end": (folder(b"Library/folder/"), errors.IllegalPath),
    "nul": (entry(b"Library/fi\0le"), errors.IllegalPath),
    "256_bytes": (entry(b"Library/" + b"n" * 256), errors.IllegalPath),
    "path_over_16_kib": (entry(b"Library" + b"/name" * 4000), errors.IllegalPath),
    "too_many_levels": (entry(b"Library" + b"/d" * 300), errors.IllegalPath),
    "another_root": (entry(b"Other/file"), errors.IllegalPath),
    "root_with_suffix": (entry(b"Library2"), errors.IllegalPath),
    "below_nothing": (entry(b"Library/nowhere/file"), errors.ParentNotDirectory),
    "symlink_to_nothing": (symlink(b"Library/link", b""), errors.IllegalLink),
    "symlink_with_nul": (symlink(b"Library/link", b"a\0b"), errors.IllegalLink),
    "symlink_of_4096_bytes": (symlink(b"Library/link", b"t" * 4096), errors.IllegalLink),
    "link_target_on_a_file": (entry(b"Library/file", link=b"x"), errors.IllegalLink),
    "hard_link_to_itself": (hardlink(b"Library/a", b"Library/a"), errors.IllegalLink),
    "hard_link_to_later": (hardlink(b"Library/a", b"Library/b"), errors.IllegalLink),
    "hard_link_outside": (hardlink(b"Library/a", b"Library/../../x"), errors.IllegalPath),
    "hard_link_absolute": (hardlink(b"Library/a", b"/etc/passwd"), errors.IllegalPath),
    "hard_link_to_nothing": (hardlink(b"Library/b", b"Library/a"), errors.IllegalLink),
    "hard_link_below_nothing": (hardlink(b"Library/b", b"Library/a/c"), errors.IllegalLink),
    "hard_link_to_a_folder": (hardlink(b"Library/b", b"Library"), errors.IllegalLink),
    "xattr_trusted": (
        entry(b"Library/a", xattrs={"trusted.overlay.opaque": b"y"}),
        errors.ManifestMalformed,
    ),
    "xattr_security": (
        entry(b"Library/a", xattrs={"security.capability": b"\1"}),
        errors.ManifestMalformed,
    ),
    "xattr_nul": (entry(b"Library/a", xattrs={"user.a\0b": b""}), errors.ManifestMalformed),
    "far_time": (entry(b"Library/a", mtime_ns=2**64), errors.ManifestMalformed),
}


def asked(agent: HostileAgent) -> list[str]:
    """Return its requests except the preflight and reports, with the first of them."""
    return [each for each in agent.requests if not each.endswith(("/server", "/log", "/checks"))]


@pytest.mark.parametrize(("bad", "kind"), NAMES.values(), ids=NAMES.keys())
async def test_impossible_entry_is_refused(
    tmp_path: Path, bad: Entry, kind: type[errors.PlexodusError]
) -> None:
    """Names, links and attributes that no library has are refused."""
    await refused(tmp_path, offer_tree([TOP, bad]), kind)


TREES = {
    "through_symlink": (
        [symlink(b"Library/a", OUTSIDE), entry(b"Library/a/secret", size=3)],
        errors.ParentNotDirectory,
    ),
    "symlink_where_the_file_goes": (
        [symlink(b"Library/a", OUTSIDE + b"/secret"), entry(b"Library/a", size=3)],
        errors.EntriesOutOfOrder,
    ),
    "hard_link_through_symlink": (
        [symlink(b"Library/a", OUTSIDE), hardlink(b"Library/b", b"Library/a/secret")],
        errors.IllegalLink,
    ),
    "file_where_folder_is": (
        [entry(b"Library/a", size=3), entry(b"Library/a/b")],
        errors.ParentNotDirectory,
    ),
    "folder_twice": ([folder(b"Library/a"), folder(b"Library/a")], errors.EntriesOutOfOrder),
    "out_of_order": ([entry(b"Library/b"), entry(b"Library/a")], errors.EntriesOutOfOrder),
    "root_twice": ([TOP], errors.EntriesOutOfOrder),
    "back_into_closed_folder": (
        [folder(b"Library/a"), folder(b"Library/b"), entry(b"Library/a/c")],
        errors.EntriesOutOfOrder,
    ),
}


@pytest.mark.parametrize(("bad", "kind"), TREES.values(), ids=TREES.keys())
async def test_contradictory_entries_are_refused(
    tmp_path: Path, bad: list[Entry], kind: type[errors.PlexodusError]
) -> None:
    """Entries that are legal only alone are refused before anything is written."""
    await refused(tmp_path, offer_tree([TOP, *bad]), kind)


GOOD_LINE = format_line(TOP)
LINES = {
    "no_entry_at_all": (b"", errors.ManifestMalformed),
    "root_is_a_file": (format_line(entry(b"Library")), errors.ManifestMalformed),
    "not_json": (GOOD_LINE + b"{\n", errors.ManifestMalformed),
    "empty_line": (GOOD_LINE + b"\n", errors.ManifestMalformed),
    "no_newline": (GOOD_LINE.strip(), errors.ManifestMalformed),
    "unknown_kind": (GOOD_LINE.replace(b"dir", b"fifo"), errors.ManifestMalformed),
    "size_on_a_folder": (GOOD_LINE[:-2] + b',"size":1}\n', errors.ManifestMalformed),
    "negative_size": (
        GOOD_LINE + format_line(entry(b"Library/a", size=7)).replace(b":7", b":-7"),
        errors.ManifestMalformed,
    ),
    "file_of_2_exbibytes": (
        GOOD_LINE + format_line(entry(b"Library/a", size=2**61, data=0)),
        errors.ManifestTooLarge,
    ),
    "one_giant_line": (b"[" * (MAX_LINE + 1) + b"\n", errors.ManifestTooLarge),
    "piece_too_long": (GOOD_LINE * 20_000, errors.ManifestTooLarge),
}


@pytest.mark.parametrize(("lines", "kind"), LINES.values(), ids=LINES.keys())
async def test_invalid_manifest_is_refused(
    tmp_path: Path, lines: bytes, kind: type[errors.PlexodusError]
) -> None:
    """A manifest with the right name and invalid content is refused."""
    offer = offer_lines(lines)
    if not lines:
        offer.announce(b"")
    await refused(tmp_path, offer, kind)


PACKED = {
    "bomb": (zstd_bomb(GIB, GIB), errors.ManifestTooLarge),
    "bomb_that_declares_nothing": (zstd_bomb(GIB, None), errors.ManifestTooLarge),
    "bomb_that_declares_little": (zstd_bomb(GIB, 100), errors.ManifestMalformed),
    "no_zstd": (b"never packed at all", errors.ManifestMalformed),
    "cut": (packed(GOOD_LINE)[:-5], errors.ManifestMalformed),
    "skippable_frame": (b"\x50\x2a\x4d\x18\x04\0\0\0junk", errors.ManifestMalformed),
    "trailing_bytes": (packed(GOOD_LINE) + b"more", errors.ManifestMalformed),
    "another_one": (packed(GOOD_LINE), errors.ManifestDigestWrong),
}


@pytest.mark.parametrize(("wire", "kind"), PACKED.values(), ids=PACKED.keys())
async def test_manifest_packed_badly(
    tmp_path: Path, wire: bytes, kind: type[errors.PlexodusError]
) -> None:
    """Bombs are refused by their declared size, and other content by the name."""
    offer = offer_tree([TOP])
    offer.announce(wire, name="f" * 64)
    await refused(tmp_path, offer, kind)


async def test_endless_manifest_is_cut_off(tmp_path: Path) -> None:
    """A manifest is cut off at its announced length and removed from the volume."""
    offer = offer_tree([TOP])
    offer.manifest = [Reply(b"\0" * 65536, endless=True)]
    await refused(tmp_path, offer, errors.ManifestTooLarge)
    assert os.listdir(tmp_path / "target" / ".plexodus") == ["lock"]


@pytest.mark.parametrize("field", ["entries", "files", "content_bytes", "frames"])
async def test_sums_with_other_digests_are_refused(tmp_path: Path, field: str) -> None:
    """The manifest must match its announced sums."""
    offer = offer_tree([TOP, entry(b"Library/a", size=3)])
    offer.snapshot[field] += 1
    await refused(tmp_path, offer, errors.ManifestSumsWrong)


SNAPSHOTS: dict[str, tuple[dict[str, Any], type[errors.PlexodusError]]] = {
    "name_no_digest": ({"id": "../../x"}, errors.ProtocolViolation),
    "name_in_capitals": ({"id": "F" * 64}, errors.ProtocolViolation),
    "manifest_of_a_pebibyte": ({"manifest_bytes": 2**50}, errors.ManifestTooLarge),
    "negative_manifest": ({"manifest_bytes": -1}, errors.ProtocolViolation),
    "entries_no_number": ({"entries": "many"}, errors.ProtocolViolation),
    **{
        f"library_called_{name!r}": (
            {"library": {"id": "0", "name": name, "host": "vm", "path": "/"}},
            errors.IllegalPath,
        )
        for name in ("", ".", "..", ".plexodus", "/", "../x", "a/b", "/etc", "a\0b", "n" * 256)
    },
}


@pytest.mark.parametrize(("lie", "kind"), SNAPSHOTS.values(), ids=SNAPSHOTS.keys())
async def test_invalid_snapshot_is_refused(
    tmp_path: Path, lie: dict[str, Any], kind: type[errors.PlexodusError]
) -> None:
    """An invalid snapshot is refused before any further request."""
    offer = offer_tree([TOP])
    offer.snapshot |= lie
    agent = await refused(tmp_path, offer, kind)
    assert asked(agent) == ["GET /v1/cutover", "POST /v1/snapshots"]


PROBLEM = {"Content-Type": "application/problem+json"}
ANSWERS = {
    "garbage": (Reply(b"{garbage", 201), errors.ProtocolViolation, 1),
    "lone_surrogate": (Reply(b'{"id":"\\ud800x"}', 201), errors.ProtocolViolation, 1),
    "not_utf_8": (Reply(b'{"id":"\xff"}', 201), errors.ProtocolViolation, 1),
    "deeply_nested": (Reply(b'{"x":' + b"[" * 100_000, 201), errors.ProtocolViolation, 1),
    "endless": (Reply(b" " * 65536, 201, endless=True), errors.FrameTooLarge, 1),
    "other_status": (Reply(b"{}", 200), errors.ProtocolViolation, 1),
    "redirect": (Reply(status=307, headers={"Location": "/other"}), errors.ProtocolViolation, 1),
    "endless_error": (Reply(b" " * 65536, 500, PROBLEM, endless=True), errors.FrameTooLarge, 1),
    "garbage_error": (Reply(b"\xff", 500, PROBLEM), errors.ProtocolViolation, 1),
    "endless_error_page": (
        Reply(b"<p>" * 65536, 500, {"Content-Type": "text/html"}, endless=True),
        errors.AgentUnreachable,
        4,
    ),
}


@pytest.mark.parametrize(("reply", "kind", "tries"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_only_temporary_failures_are_retried(
    tmp_path: Path, reply: Reply, kind: type[errors.PlexodusError], tries: int
) -> None:
    """No redirect is followed, and only temporary failures are retried."""
    offer = offer_tree([TOP])
    offer.scan = [reply]
    is_away = kind is errors.AgentUnreachable
    code = ExitCode.UNREACHABLE if is_away else ExitCode.INTEGRITY
    agent = await refused(tmp_path, offer, kind, code)
    assert asked(agent) == ["GET /v1/cutover", *["POST /v1/snapshots"] * tries]


REPORTS = {
    "garbage": (Reply(b"{garbage"), errors.ProtocolViolation),
    "no_report": (Reply(b"{}"), errors.ProtocolViolation),
    "endless": (Reply(b" " * 65536, endless=True), errors.FrameTooLarge),
    "other_status": (Reply(b"", 204), errors.ProtocolViolation),
}


@pytest.mark.parametrize(("reply", "kind"), REPORTS.values(), ids=REPORTS.keys())
async def test_unreadable_report_ends_the_pull(
    tmp_path: Path, reply: Reply, kind: type[errors.PlexodusError]
) -> None:
    """Without a readable preflight report, nothing is moved."""
    offer = offer_tree([TOP])
    offer.server = [reply]
    agent = await refused(tmp_path, offer, kind)
    assert not [each for each in agent.requests if "frames" in each]
