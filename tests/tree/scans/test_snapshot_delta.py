"""A delta has the entries of a whole scan, and keeps those that are as its base saw them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig.delta_scans import LATER, Scans, marked, sent
from rig.mounts import NEEDS_ROOT, tmpfs

from agent.snapshots import store, whole_tree
from agent.snapshots.delta_lines import DeltaLines
from shared.errors import SnapshotGone
from shared.frames.plan import FRAME
from shared.native import native
from shared.tree.omitted import read_omitted

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.usefixtures("trusted_times")


def test_everything_is_as_it_was(scans: Scans) -> None:
    """Every entry is kept."""
    assert sent(scans.delta(scans.scan())) == set()


def test_digests_of_kept_files_are_known(scans: Scans) -> None:
    """Nothing that is kept has to be read again for its digest."""
    base = scans.scan()
    whole_tree.complete_digests(base)
    delta = scans.scan("cold", base.about.id)
    assert list(delta.digests) == list(base.digests)
    assert any(delta.digests)


@pytest.mark.parametrize("what", ["content", "content, same times", "mode", "time", "xattr"])
def test_changed_file_is_sent(scans: Scans, library: Path, what: str) -> None:
    """The file is sent, and nothing else: its folder has not changed."""
    base, file = scans.scan(), library / "b" / "below" / "1"
    info = file.stat()
    if what == "mode":
        file.chmod(0o600)
    elif what == "time":
        os.utime(file, ns=(1, 1))
    elif what == "xattr":
        os.setxattr(file, "user.x", b"y")
    else:
        with file.open("r+b") as opened:
            opened.write(b"new")
        if what == "content, same times":
            os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert sent(scans.delta(base)) == {"Library/b/below/1"}


def test_renamed_folder_is_sent(scans: Scans, library: Path) -> None:
    """With everything below it, and the folder that contains it."""
    base = scans.scan()
    (library / "b" / "below").rename(library / "b" / "other")
    found = sent(scans.delta(base))
    assert {"Library/b", "Library/b/other", "Library/b/other/0"} <= found
    assert not any(path.startswith(("Library/a", "Library/c")) for path in found)


def test_names_come_and_go(scans: Scans, library: Path) -> None:
    """A folder that has got or lost a name is listed again."""
    base = scans.scan()
    (library / "a" / "00").write_bytes(b"new")
    (library / "c" / "2").unlink()
    entries = scans.delta(base)
    assert sent(entries) == {"Library/a", "Library/a/00", "Library/c"}
    assert "Library/c/2" not in entries


def test_file_becomes_a_folder(scans: Scans, library: Path) -> None:
    """The folder is sent with everything in it."""
    base = scans.scan()
    (library / "a" / "1").unlink()
    (library / "a" / "1").mkdir()
    (library / "a" / "1" / "below").write_bytes(b"new")
    assert sent(scans.delta(base)) == {"Library/a", "Library/a/1", "Library/a/1/below"}


def test_what_is_left_out_is_reported_again(scans: Scans) -> None:
    """A FIFO, and a name that a pattern excludes: the delta reports both, as a whole scan does."""
    base = scans.scan("cold", "", "2")
    assert sent(scans.delta(base, "2")) == set()


def test_base_of_an_older_release(tmp_path: Path, library: Path) -> None:
    """There is no file of what it left out: it is no base, until the next scan makes its list."""
    base = Scans(tmp_path / "state", library).scan("cold", "", "2")
    path = Path(base.folder, "snapshot.json")
    about = json.loads(path.read_text())
    del about["omitted"]
    about |= {"skipped": ["Library/c/fifo (FIFO)"], "excluded": ["Library/a/2 (3000 bytes)"]}
    path.write_text(json.dumps(about))
    Path(base.omitted_path).unlink()

    scans = Scans(tmp_path / "state", library)
    base = scans.store.open(base.about.id)
    whole_tree.check_unchanged(base)
    with pytest.raises(SnapshotGone):
        scans.scan("cold", base.about.id, "2")
    scans.scan("cold", "", "2")
    listed = len(list(read_omitted(base.omitted_path)))
    assert listed in (4, 5)  # a FIFO, three files called 2, and an xattr with an odd name
    assert sent(scans.delta(base, "2")) == set()


def test_excluded_file_grows(scans: Scans, library: Path) -> None:
    """The next scan has the same entries, so it is the same snapshot; the list is the new one."""
    before = scans.scan("cold", "", "2")
    listed = {str(record) for record in read_omitted(before.omitted_path)}
    with (library / "a" / "2").open("ab") as file:
        file.write(b"more")
    after = scans.scan("cold", "", "2")
    assert after.about.id == before.about.id
    assert after.about.created == before.about.created  # the times that are trusted do not change
    found = {str(record) for record in read_omitted(after.omitted_path)}
    assert found - listed == {"Library/a/2 (3004 bytes)"}
    assert len([name for name in os.listdir(after.folder) if name.startswith("omitted-")]) == 1


def test_other_patterns_than_the_base(scans: Scans) -> None:
    """Folders are listed again: names that the base left out are entries now."""
    base = scans.scan("cold", "", "2")
    assert {"Library/a/2", "Library/c/2"} <= sent(scans.delta(base))


def test_databases_of_a_live_base_are_sent(scans: Scans, library: Path) -> None:
    """SQLite writes through memory maps, so a database's times say nothing; all else is kept."""
    base = scans.scan("live")
    assert marked(base, library, LATER) == {"Library/c/x.db"}


def test_young_files_of_a_live_base_are_sent(scans: Scans, library: Path) -> None:
    """A write right after the scan could have left the ctime as it is."""
    base = scans.scan("live")
    found = marked(base, library, base.about.created)
    assert found == {os.fsdecode(entry.path) for entry in base.manifest}


def test_disk_whose_times_are_not_trusted(
    scans: Scans, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing on it is kept."""
    monkeypatch.setattr(store, "write_back", lambda _: set())
    base = scans.scan()
    found = marked(base, library, LATER)
    assert found == {os.fsdecode(entry.path) for entry in base.manifest}


def _replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(os.urandom(3000))


def _swap(path: Path) -> None:
    other, once = path.with_name("0"), path.with_name("once")
    if other != path and other.exists():
        path.rename(once)
        other.rename(path)
        once.rename(other)


CHANGES: list[Callable[[Path], object]] = [
    _replace,
    _swap,
    os.unlink,
    lambda path: path.rename(path.with_name("zz")),
    lambda path: path.with_name("00").write_bytes(b"new"),
    lambda path: path.with_name(path.name + "-new").hardlink_to(path),
    lambda path: shutil.rmtree(path.parent),
]
FILES = ["a/1", "b/below/0", "b/below/2", "c/1"]


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(FILES), st.sampled_from(CHANGES), max_size=4))
def test_any_changes(
    tmp_path_factory: pytest.TempPathFactory,
    library: Path,
    changes: dict[str, Callable[[Path], object]],
) -> None:
    """The entries are those of a whole scan, and a kept file has the content that it had."""
    place = tmp_path_factory.mktemp("any")
    copy = place / "Library"
    shutil.copytree(library, copy, symlinks=True, ignore=lambda *_: {"fifo"})
    scans = Scans(place / "state", copy)
    base = scans.scan()
    before = {path: (copy / path).read_bytes() for path in FILES}
    for name, change in changes.items():
        if (copy / name).exists():
            change(copy / name)
    entries = scans.delta(base)
    for path, content in before.items():
        entry = entries.get(f"Library/{path}")
        if entry is not None and entry.kept:
            assert (copy / path).read_bytes() == content
    shutil.rmtree(place)


@pytest.mark.skipif(native is None, reason="the accelerator is not installed")
def test_unchanged_entries_need_no_python(tmp_path: Path) -> None:
    """Of a library that is as it was, only large files and databases are judged one by one."""
    library = tmp_path / "Library"
    for number in range(50):
        (library / f"{number}").mkdir(parents=True)
        for name in ("file", "other"):
            (library / f"{number}" / name).write_bytes(name.encode())
        (library / f"{number}" / "link").symlink_to("file")
    (library / "x.db").touch()
    scans = Scans(tmp_path / "state", library)
    base = scans.scan()
    with mock.patch.object(DeltaLines, "_judged", autospec=True, side_effect=_judged) as judged:
        delta = scans.scan("cold", base.about.id)
    assert sum(entry.kept for entry in delta.manifest) == 1 + 50 * 4 + 1
    assert [call.args[2].path for call in judged.call_args_list] == [b"Library/x.db"]


_judged = DeltaLines._judged


@NEEDS_ROOT
def test_disk_in_the_library_whose_times_are_not_trusted(scans: Scans, library: Path) -> None:
    """Nothing on it is kept, and everything else is."""
    shutil.move(library / "c", library.parent / "c")
    (library / "c").mkdir()
    with tmpfs(library / "c") as disk:
        for name in ("0", "x.db"):
            shutil.copy2(library.parent / "c" / name, disk)
        base = scans.scan()
        found = sent(scans.delta(base))
        assert found == {path for path in found if path.startswith("Library/c")}
        assert {"Library/c", "Library/c/0", "Library/c/x.db"} <= found


def test_kept_large_file_without_a_digest(scans: Scans, library: Path) -> None:
    """If the base's digests were lost, a kept large file is read whole: it has no frames."""
    with (library / "large").open("wb") as large:
        large.truncate(FRAME + 1)
    base = scans.scan()
    delta = scans.scan("cold", base.about.id)
    whole_tree.complete_digests(delta)
    digests = {
        entry.path: digest for entry, digest in zip(delta.manifest, delta.digests, strict=True)
    }
    assert digests[b"Library/large"] == hashlib.sha256(bytes(FRAME + 1)).digest()
