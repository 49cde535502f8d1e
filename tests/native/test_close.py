"""Some volumes, as those on a network, report a failed write only when the file is closed."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from rig.frame_plan import plan
from rig.hostile.agent import entry, folder, frame_tars

from initpuller.volume.filesystem import FOLDER
from shared.digest import sha256, sha256_of_all
from shared.frames.pieces import PIECE
from shared.frames.plan import FRAME
from shared.native import native
from shared.tree.manifest import format_line

_CLOSE = {"x86_64": 3, "aarch64": 57}
"""Number of the system call, by machine."""
_SET_SECCOMP, _FILTER, _SET_NO_NEW_PRIVILEGES = 22, 2, 38
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_FAIL, _ALLOW = 0x00050000, 0x7FFF0000
_REFUSED, _UNPACKED = 10, 11

pytestmark = [
    pytest.mark.skipif(native is None, reason="without the accelerator"),
    pytest.mark.skipif(platform.machine() not in _CLOSE, reason="on an unknown machine"),
]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("size", [1, FRAME + 1])
def test_close_fails(tmp_path: Path, size: int, *, fails: bool) -> None:
    """If a close fails, the frame does not count as unpacked: Python has to do it, or to fail."""
    run = [sys.executable, __file__, str(tmp_path), str(size), "fails" if fails else ""]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(run, env=environment, check=False)
    assert done.returncode == (_REFUSED if fails else _UNPACKED)


def _unpack(staging: Path, size: int, *, fails: bool) -> int:
    """Unpack the first frame of a file of ``size`` bytes; return whether that is done."""
    entries = [folder(b"Library"), entry(b"Library/a", size=size)]
    frame, content = plan(entries)[size > FRAME], b"x" * size
    tar = list(frame_tars(entries, {b"Library/a": content}))[frame.number]
    lines = b"".join(map(format_line, entries[frame.first :]))
    pieces = [content[start : start + PIECE] for start in range(0, min(size, FRAME), PIECE)]
    tag = sha256_of_all(map(sha256, pieces))
    owner = (os.geteuid(), os.getegid()), False
    into = os.open(staging, FOLDER)
    if fails:
        _let_close_fail()
    assert native is not None
    done = native.unpack(into, lines, frame.block, bytes(tar), tag, owner)
    return _REFUSED if done is None else _UNPACKED


def _let_close_fail() -> None:
    """Have the kernel answer each close with an error (seccomp(2))."""
    rules = (
        (_LOAD, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, _CLOSE[platform.machine()]),
        (_RETURN, 0, 0, _FAIL | errno.EIO),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(rules), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None).prctl
    assert prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    assert prctl(_SET_SECCOMP, _FILTER, program, 0, 0) == 0


if __name__ == "__main__":
    os._exit(_unpack(Path(sys.argv[1]), int(sys.argv[2]), fails=bool(sys.argv[3])))
