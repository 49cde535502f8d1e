"""Entries that the agent may not read are reported before anything moves, never left out."""

from __future__ import annotations

import os

import pytest
from rig.programs import Puller, running
from rig.unprivileged import UnprivilegedAgent, open_place

from shared.program.exit_codes import ExitCode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user's")
def test_everything_unreadable_is_listed_before_anything_moves() -> None:
    """Unreadable entries exit 12 with each path before any frame is requested.

    With those left out by --exclude, the rest arrives.
    """
    with open_place() as place:
        library = place / "vm" / "Library"
        for name in ("open", "closed", "blind"):
            (library / name).mkdir(parents=True)
            (library / name / "file").write_bytes(name.encode())
        for path in ("0000", "open/line\nbreak", "open/also mine"):
            (library / path).write_bytes(b"secret")
            (library / path).chmod(0o600 if "also" in path else 0)
        (library / "closed").chmod(0o700)
        (library / "blind").chmod(0o744)
        agent = UnprivilegedAgent(place / "state", library, place / "agent.log")
        agent.pair()
        target = place / "config"
        target.mkdir()
        puller = Puller(target, place / "puller.log", agent.pairing)
        with running(agent):
            refused = puller.pull()

            assert refused.code == ExitCode.PREFLIGHT, refused.text
            listed = refused.reason().splitlines()[1:]
            paths = ["0000", "blind/file", "closed", "open/also mine", "open/line\\nbreak"]
            assert listed == [f"  Library/{path} (Permission denied)" for path in paths]
            assert agent.frames_asked() == []
            assert os.listdir(target) == [".plexodus"]
            assert not (target / ".plexodus" / "staging").exists()

            globs = ("0000", "closed", "blind", "also*", "line*")
            done = puller.pull(*(f"--exclude={glob}" for glob in globs))

            assert done.code == ExitCode.OK, done.text
        assert sorted(os.listdir(target / "Library")) == ["open"]
        assert os.listdir(target / "Library" / "open") == ["file"]
