"""Volumes in every state that a run can find, made by real pulls that were interrupted."""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import random
import sqlite3
import stat
import sys
import warnings
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from structlog.contextvars import clear_contextvars

from initpuller.__main__ import main
from rig.programs import Agent, clean_environment
from shared.plex.library import DATABASES
from shared.program import standard_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FRAME = 4 * 1024 * 1024


class Cut(BaseException):
    """Ends the run here as a kill does: none of our code catches it."""


@dataclass
class Ended:
    """The result of a run of the puller's ``main`` in this process."""

    code: int
    log: list[dict[str, Any]]
    out: str
    text: str
    """Everything that it said on stderr."""

    def reason(self) -> str:
        """Return the text of the last ``failed`` line; empty without one."""
        said = [str(line["reason"]) for line in self.log if line.get("event") == "failed"]
        return said[-1] if said else ""


def run_puller(*arguments: str | Path, pairing: str | None = None, **variables: str) -> Ended:
    """Run ``plexodus-puller`` by :func:`run_main`, without a Plex that it could stop."""
    variables.setdefault("PLEXODUS_NO_CUTOVER", "1")
    if pairing is not None:
        variables["PLEXODUS_PAIRING"] = pairing
    return run_main(main, *arguments, **variables)


def run_main(program: Callable[[], None], *arguments: str | Path, **variables: str) -> Ended:
    """Run the whole program in this process, with arguments, environment and exit code."""
    environment = clean_environment() | variables
    name = "plexodus-puller" if program is main else "plexodus-agent"
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "argv", [name, *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(standard_streams, "end", sys.exit),
        pytest.raises(SystemExit) as ended,
    ):
        program()
    _forget_sockets()
    clear_contextvars()  # a program's own end with its process
    text = err.getvalue()
    log = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return Ended(int(ended.value.code or 0), log, out.getvalue(), text)


def pull(target: Path, agent: Agent, *options: str, **variables: str) -> Ended:
    """Pull onto ``target`` one frame at a time, so that counts are certain."""
    jobs = () if "--jobs" in options else ("--jobs", "1")
    arguments = ("pull", "--target", target, *jobs, *options)
    return run_puller(*arguments, pairing=agent.pairing, **variables)


@contextmanager
def cut_at(place: str, call: int = 1) -> Iterator[None]:
    """Cut the block short when ``place`` is called for the ``call``-th time.

    Frames are committed one by one meanwhile.
    """
    module, _, name = place.rpartition(".")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("initpuller.pull.transfer.BATCH", 1)
        holder = _resolve(module)
        real = getattr(holder, name)
        calls = 0

        def cutting(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Cut
            return real(*args, **kwargs)

        patched.setattr(holder, name, cutting)
        with pytest.raises(Cut):
            yield
    _forget_sockets()


def _forget_sockets() -> None:
    """Ignore open sockets, which the kernel closes when a real program ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _resolve(name: str) -> object:
    """Return a module, or a class in one."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, below = name.rpartition(".")
        return getattr(_resolve(module), below)


def grow_tiny(root: Path, seed: int = 3) -> Path:
    """Make a library of four frames: a large file, small ones, an empty folder, links."""
    content = random.Random(seed)  # noqa: S311 - the same tree each time
    below = root / "Plex" / "Metadata"
    below.mkdir(parents=True)
    (root / "empty").mkdir()
    (below / "large").write_bytes(content.randbytes(FRAME + 5))
    (below / "poster").write_bytes(content.randbytes(50_000))
    (root / "Plex" / "thumb").write_bytes(content.randbytes(700))
    (root / "Plex" / "hard").hardlink_to(below / "poster")
    (root / "Plex" / "link").symlink_to("Metadata/poster")
    (root / "zero").write_bytes(b"")
    return root


def grow_tiny_plex(root: Path) -> Path:
    """Create the same in as many frames, with everything that a cutover requires."""
    grow_tiny(root)
    server = root / "Application Support" / "Plex Media Server"
    databases = server / "Plug-in Support" / "Databases"
    databases.mkdir(parents=True)
    (server / "Preferences.xml").write_text('<Preferences MachineIdentifier="tiny"/>')
    for name in DATABASES:
        with closing(sqlite3.connect(databases / name)) as database:
            database.execute("CREATE TABLE made (id INTEGER)")
    return root


def grow_small(root: Path) -> Path:
    """Make a library of 12 frames: folders, small files, two large ones, links."""
    root.mkdir(parents=True)
    content = random.Random(7)  # noqa: S311 - the same tree each time
    for folder in range(20):
        below = root / f"folder{folder:02}" / "Contents"
        below.mkdir(parents=True)
        for number in range(40):
            (below / f"file{number:02}").write_bytes(content.randbytes(content.randrange(30_000)))
        (below / "link").symlink_to("file00")
    (root / "large").write_bytes(content.randbytes(4 * FRAME + 12_345))
    (root / "larger").write_bytes(content.randbytes(3 * FRAME))
    (root / "folder00" / "hard").hardlink_to(root / "large")
    return root


def fingerprint(top: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return inode, mode, mtime and content of everything in and below ``top``."""
    found = {}
    paths = [top, *sorted(top.rglob("*"))] if top.is_dir() and not top.is_symlink() else [top]
    for path in paths:
        info = path.lstat()
        content = b""
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        name = str(path.relative_to(top))
        found[name] = (info.st_ino, info.st_mode, info.st_mtime_ns, content)
    return found


def everything(root: Path) -> dict[str, tuple[object, ...]]:
    """Return attributes and content of all below ``root``, except the puller's own folder."""
    found: dict[str, tuple[object, ...]] = {}
    for above, names, files in os.walk(root):
        if ".plexodus" in names:
            names.remove(".plexodus")
        for path in (above, *(os.path.join(above, name) for name in (*names, *files))):
            info = os.lstat(path)
            content = b""
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            found[path] = (info.st_mode, info.st_uid, info.st_ino, info.st_ctime_ns, content)
    return found


def left_of_pull(target: Path) -> set[str]:
    """Return the content of the puller's own folder."""
    return {path.name for path in (target / ".plexodus").iterdir()}


RECEIPT_FILES = {"lock", "receipt.json", "manifest.jsonl.zst", "omitted.jsonl.zst", "SHA256SUMS"}
"""All that is in the puller's own folder when a pull is done."""
