"""Makes a Plex library to move, with every kind of thing a real one holds, at any size.

The same shape gives the same tree: names, bytes, modes and times (save that SQLite stamps its
version into databases, and chance into a `-wal`). Run it as `python -m bench.plexlibrary DIR`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from bench.plexdatabase import (
    DAY,
    NEWEST,
    DatabaseCounts,
    DatabaseShape,
    Words,
    digest,
    guid,
    make_databases,
)

SERVER = "Application Support/Plex Media Server"
DATABASES = "Plug-in Support/Databases"

_VERSIONS = ("v1.40.1.8227-c0dd5a73e", "v1.40.0.7998-c29d4c0c8")  # of the last run, and before
_PREFERENCES = f"""<?xml version="1.0" encoding="utf-8"?>
<Preferences MachineIdentifier="fa4efa4e-0000-4000-8000-fa4efa4efa4e" FriendlyName="Fake Plex"\
 ProcessedMachineIdentifier="{"fa4e" * 10}" CertificateUUID="{"fa4e" * 8}"\
 AnonymousMachineIdentifier="fa4efa4e-1111-4111-8111-fa4efa4efa4e" AcceptedEULA="1"\
 PlexOnlineToken="FAKE-not-a-token-000" PlexOnlineUsername="nobody" autoEmptyTrash="1"\
 TranscoderTempDirectory="/var/tmp/plex-transcode" allowedNetworks="192.168.1.0/24"/>
"""
_BIF = b"\x89BIF\r\n\x1a\n"
_TURN = re.compile(r"\.(\d)\.log$")  # in the name of a log that has been put aside
_JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x01\x00\x48\x00\x48\x00\x00\xff\xfe\x00\x2a"
_NAMES = ("imdb", "themoviedb", "thetvdb", "lastfm", "localmedia", "none")  # for * below
_FIXED = """ path|kind|usual kilobytes
Preferences.xml|preferences|0
Cache/Transcode/Sessions/|empty|0
Codecs/8217c1c-4578-linux-x86_64/libaac_decoder.so|binary|600
Codecs/EasyAudioEncoder-1452-linux-x86_64/EasyAudioEncoder/EasyAudioEncoder|binary|1500
Crash Reports/1.40.0.7998-c29d4c0c8/PLEX MEDIA SERVER/0fa4e0fa4e0fa4e0.dmp|binary|300
Diagnostics/Streaming Brain.log|text|50
Logs/PMS Plugin Logs/com.plexapp.agents.*.log|text|60
Logs/PMS Plugin Logs/com.plexapp.system.log|empty|0
Plug-in Support/Caches/com.plexapp.agents.*/|empty|0
Plug-in Support/Databases/|empty|0
Plug-in Support/Preferences/com.plexapp.agents.*.xml|xml|1
Plug-ins/*.bundle/Contents/Info.plist|xml|1
Plug-ins/*.bundle/Contents/Code/__init__.pys|text|40
Plug-ins/*.bundle/Contents/Resources/icon-default.jpg|jpeg|30
Plug-ins/*.bundle/Contents/Strings/Français.json|text|4
Updates/|empty|0
"""


@dataclass(frozen=True)
class LibraryShape:
    """How large a library is to be: all its entries and bytes, and those of its database."""

    entries: int
    bytes_total: int
    database_bytes: int
    incompressible: float = 0.65  # share of the bytes outside databases that is like JPEG
    seed: int = 1
    page_size: int = 4096  # of the databases, in bytes


@dataclass(frozen=True)
class LibraryCounts:
    """Counts of what `make_library` made below its root."""

    entries: int
    files: int
    folders: int
    symlinks: int
    bytes_total: int
    databases: DatabaseCounts


SMALL = LibraryShape(5_000, 100_000_000, 10_000_000)
L1 = LibraryShape(32_000, 1_500_000_000, 320_000_000, 0.86)
L2 = LibraryShape(250_000, 1_000_000_000, 60_000_000)
L3 = LibraryShape(100_000, 4_000_000_000, 320_000_000, 0.86, page_size=1024)
"""Bytes an entry and pages of the databases as real libraries have them."""
SHAPES = {"small": SMALL, "l1": L1, "l2": L2, "l3": L3}


@dataclass
class _File:
    path: str
    kind: str
    usual: float  # kilobytes, in a library at full size
    size: int = 0


class _Plan:
    """The layout of a library, below the server's folder: what is where, before it is made."""

    def __init__(self, seed: int, entries: int) -> None:
        self.seed = seed
        self.rng = random.Random(f"{seed}/plan")
        self.folders: dict[str, None] = {}
        self.links: dict[str, str] = {}
        self.files: list[_File] = []
        for line in _FIXED.split("\n")[1:-1]:
            path, kind, usual = line.split("|")
            for name in _NAMES if "*" in path else ("",):
                self._file(path.replace("*", name), kind, int(usual))
        for log, size in (("Server", 1500), ("Scanner", 400), ("Scanner Analysis", 300)):
            for turn in ("", ".1", ".2", ".3", ".4", ".5"):
                self._file(f"Logs/Plex Media {log}{turn}.log", "log", size)
        number = 0
        while len(self) + 80 < entries:
            self._bundle("Movies", "movie", "tv.plex.agents.movie", number)
            self._media("movie", number)
            if number % 4 == 0 and len(self) + 550 < entries:
                self._show(number // 4)
            number += 1
        while len(self) < entries:
            code = digest(seed, "cache", len(self))
            self._file(f"Cache/PhotoTranscoder/{code[0]}/{code}.jpg", "jpeg", 20)

    def __len__(self) -> int:
        return len(self.folders) + len(self.links) + len(self.files)

    def _folder(self, path: str) -> None:
        if path and path not in self.folders:
            self._folder(os.path.dirname(path))
            self.folders[path] = None

    def _file(self, path: str, kind: str, usual: float) -> None:
        self._folder(os.path.dirname(path))
        if not path.endswith("/"):
            self.files.append(_File(path, kind, usual * self.rng.lognormvariate(0, 0.6)))

    def _picture(self, contents: str, source: str, name: str, usual: float) -> None:
        """A picture of an agent's, and the relative link by which Plex finds it."""
        self._file(f"{contents}/{source}/{name}", "jpeg", usual)
        where, file = os.path.split(name)
        self._folder(f"{contents}/_combined/{where}")
        up = "../" * (where.count("/") + 2)
        self.links[f"{contents}/_combined/{where}/{source}_{file}"] = f"{up}{source}/{name}"

    def _bundle(self, kind: str, name: str, agent: str, number: int) -> str:
        """Write the metadata of one item."""
        address = guid(self.seed, name, number)
        code = digest(address)
        contents = f"Metadata/{kind}/{code[0]}/{code[1:]}.bundle/Contents"
        self._folder(f"{contents}/_stored")
        for what, most, usual in (("posters", 8, 45), ("art", 6, 90)):
            for place in range(self.rng.randint(1, most)):
                self._picture(contents, agent, f"{what}/{digest(address, what, place)}", usual)
        if number % 3 == 0:
            self._picture(contents, "_stored", f"posters/{digest(address, 'upload')}", 60)
        self._file(f"{contents}/{agent}/Info.xml", "xml", 6)
        self.links[f"{contents}/_combined/Info.xml"] = f"../{agent}/Info.xml"
        return contents

    def _media(self, name: str, number: int) -> None:
        code = digest(guid(self.seed, name, number), "media")
        contents = f"Media/localhost/{code[0]}/{code[1:]}.bundle/Contents"
        self._file(f"{contents}/Thumbnails/thumb1.jpg", "jpeg", 12)
        if number % 2 == 0:
            self._file(f"{contents}/Indexes/index-sd.bif", "bif", 300)
        for chapter in range(self.rng.randrange(12)):
            self._file(f"{contents}/Chapters/chapter{chapter + 1}.jpg", "jpeg", 9)

    def _show(self, number: int) -> None:
        """A show of two seasons, and an artist with an album."""
        agent = "tv.plex.agents.series"
        contents = self._bundle("TV Shows", "show", agent, number)
        for place in range(12):
            episode = f"seasons/{place // 6 + 1}/episodes/{place % 6 + 1}/thumbs"
            self._picture(contents, agent, f"{episode}/{digest(contents, place)}", 25)
            self._media("episode", 12 * number + place)
        self._bundle("Artists", "artist", "tv.plex.agents.music", number)
        self._bundle("Albums", "album", "tv.plex.agents.music", number)

    def deal(self, total: int, incompressible: float) -> None:
        """Give the files their sizes, of so many bytes in all."""
        packed = int(total * incompressible)
        big, spare = 9_000_000, int(packed * 0.3)  # for the indexes as large as those of long films
        for file in self.files:
            if file.kind == "bif" and big <= spare:
                file.size, spare, big = big, spare - big, self.rng.randrange(4_500_000, 9_000_000)
        for kinds, share in (("jpeg bif", packed), ("log xml text binary", total - packed)):
            files = [file for file in self.files if file.kind in kinds.split()]
            usual = sum(file.usual for file in files if not file.size)
            scale = (share - sum(file.size for file in files)) / usual
            for file in files:
                file.size = file.size or max(256, int(file.usual * scale))


class _Content:
    """File content that is cheap to make and compresses like real content."""

    def __init__(self, seed: int, size: int) -> None:
        self.rng = random.Random(f"{seed}/content")
        self.words = words = Words(self.rng, min(size // 32, 8 << 20))
        lines = (
            f"Mar 14, 2024 {n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d} DEBUG - GET /"
            f"library/metadata/{words.pick(90_000)} #{words.pick(1 << 30):x} {words.text(40)}\n"
            for n in range(max(1000, min(size // 2500, 60_000)))
        )
        self.log, self.prose = "".join(lines).encode(), self.words.prose.encode()

    def of(self, file: _File) -> bytes:
        """The bytes of one file, which differ from those of any other."""
        name = digest(file.path)
        if file.kind == "bif":
            return self._bif(file.size)
        version = _VERSIONS[bool(_TURN.search(file.path))]
        head = {
            "log": f"Mar 14, 2024 03:12:45.123 [1] INFO - Plex Media Server {version} - {name}\n",
            "xml": f'<?xml version="1.0" encoding="utf-8"?>\n<Item id="{name}"><summary>',
            "text": f"# {name}\n",
            "binary": f"\x7fELF\x02\x01\x01{name}",
            "preferences": _PREFERENCES,
        }.get(file.kind, "")
        start = _JPEG + name.encode() if file.kind == "jpeg" else head.encode()
        end = {"jpeg": b"\xff\xd9", "xml": b"</summary></Item>\n"}.get(file.kind, b"")
        return start + self._fill(file.kind, file.size - len(start) - len(end)) + end

    def _bif(self, size: int) -> bytes:
        frames = max(1, size // 8192)
        start = 64 + 8 * (frames + 1)
        step = (size - start) // frames
        index = [value for n in range(frames + 1) for value in (n, start + n * step)]
        index[-2:] = 2**32 - 1, size
        head = struct.pack(f"<8s3I44x{len(index)}I", _BIF, 0, frames, 2000, *index)
        body = bytearray(self.rng.randbytes(size - start))
        for n in range(frames):
            body[n * step : n * step + len(_JPEG)] = _JPEG
        return head + body

    def _fill(self, kind: str, size: int) -> bytes:
        if kind == "jpeg":
            return self.rng.randbytes(size)
        pool, parts = self.log if kind == "log" else self.prose, []
        while size > 0:
            start = self.words.pick(len(pool))
            parts.append(pool[start : start + size])
            size -= len(parts[-1])
        return b"".join(parts)


def _finish(path: str, name: str, seed: int, *, folder: bool) -> None:
    """Give an entry its time, and (of a link: its target, a plain file) its mode."""
    chance, turn = int(digest(seed, name), 16), _TURN.search(name)
    ago = chance % (3000 * DAY)
    if "/Logs/" in name or "/Databases/" in name or name.endswith("/Preferences.xml"):
        ago = 3 * DAY * int(turn[1]) if turn else 3 * DAY * ("db-2024" in name)
    when = (NEWEST - ago) * 10**9 + ((chance >> 64) % 10**9 if chance >> 157 else 0)
    private, program = name.endswith("/Preferences.xml"), "/Codecs/" in name
    os.chmod(path, 0o600 if private else 0o755 if program or folder else 0o644)
    os.utime(path, ns=(when, when), follow_symlinks=False)


def make_library(root: Path, shape: LibraryShape, *, leave_wal: bool = False) -> LibraryCounts:
    """Make the folder `root`, a `Library` of this shape; FileExistsError if there is one.

    With `leave_wal` the newest rows of its database are still in a `-wal`, as after a crash.
    """
    dated = int(8 * shape.database_bytes <= shape.bytes_total)
    plan = _Plan(shape.seed, shape.entries - 4 - dated - 2 * leave_wal)
    root.mkdir(parents=True)
    server = f"{root}/{SERVER}"
    os.makedirs(server)
    for path in plan.folders:
        os.mkdir(f"{server}/{path}")
    folder = Path(server, DATABASES)
    database = DatabaseShape(shape.database_bytes, shape.page_size, shape.seed)
    made = make_databases(folder, database, dated=dated, leave_wal=leave_wal)
    plan.deal(shape.bytes_total - made.bytes_total, shape.incompressible)
    content = _Content(shape.seed, shape.bytes_total)
    total = made.bytes_total
    for file in plan.files:
        with open(f"{server}/{file.path}", "xb", buffering=0) as out:
            total += out.write(content.of(file))
    for link, target in plan.links.items():
        os.symlink(target, f"{server}/{link}")
    for where, _, names in os.walk(root, topdown=False):
        for path in (*(f"{where}/{name}" for name in names), where):  # a folder last
            _finish(path, path[len(str(root)) :], shape.seed, folder=path == where)
    files, folders, links = len(plan.files) + made.files, len(plan.folders) + 2, len(plan.links)
    return LibraryCounts(files + folders + links, files, folders, links, total, made)


def main() -> None:
    """Make the library that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, argument_default=argparse.SUPPRESS)
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder Library, to be made")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--leave-wal", action="store_true", default=False, help="as after a crash")
    for field in ("entries", "bytes_total", "database_bytes", "seed"):
        option = "--" + field.removesuffix("_total").replace("_", "-")
        parser.add_argument(option, dest=field, type=int, help="instead of the shape's")
    given = vars(parser.parse_args())
    root, shape, wal = (given.pop(name) for name in ("folder", "shape", "leave_wal"))
    print(make_library(root, dataclasses.replace(SHAPES[shape], **given), leave_wal=wal))


if __name__ == "__main__":
    main()
