"""The campaign's preloaded library reaches the calls of Python: else a fault would do nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from campaign.shim import Operation, Shim, compile_shim

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = """
os.stat(f), os.lstat(f), os.stat("f", dir_fd=d), os.listdir(b), os.scandir(b), open(f),
os.open(f, 0), os.open("f", 0, dir_fd=d), os.rename(f, f), os.rename("f", "f", dst_dir_fd=d),
os.unlink(f), os.unlink("f", dir_fd=d), os.rmdir(b), os.mkdir(n), os.mkdir("n", dir_fd=d),
os.chmod(f, 0), os.chmod("f", 0, dir_fd=d), os.chown("f", 0, 0, dir_fd=d), os.utime("f", dir_fd=d),
os.symlink("x", n), os.symlink("x", "n", dir_fd=d), os.link(f, "n", dst_dir_fd=d), os.readlink(f),
os.readlink("f", dir_fd=d), libc.access(w, 0), os.statvfs(f), os.truncate(f, 0)
"""
_OPEN = """
os.fstat(o), os.fstatvfs(o), os.lseek(o, 0, 0), os.ftruncate(o, 0), os.posix_fallocate(o, 0, 1),
os.fchmod(o, 0), os.fchown(o, 0, 0), os.utime(o), os.listxattr(o), os.getxattr(o, "user.x"),
os.setxattr(o, "user.x", b""), os.removexattr(o, "user.x"), os.listdir(d), list(os.scandir(d))
"""
_READ = "os.read(o, 1), os.pread(o, 1, 0), os.preadv(o, [bytearray(1)], 0)"
_WRITE = "os.write(o, b'x'), os.pwrite(o, b'x', 0), os.pwritev(o, [b'x'], 0)"
_SYNC = "os.fsync(o), os.fdatasync(o), libc.syncfs(o)"
_CALLS = {
    Operation.NAME: _NAMES,
    Operation.OPEN: _OPEN,
    Operation.READ: _READ,
    Operation.WRITE: _WRITE,
    Operation.SYNC: _SYNC,
}
_PROGRAM = """
import ctypes, errno, json, os, sys
b, libc = sys.argv[1], ctypes.CDLL(None, use_errno=True)
f, w, n, d = b + "/f", os.fsencode(b + "/f"), b + "/n", os.open(b, os.O_DIRECTORY)
o = os.open(f, os.O_RDWR | os.O_CREAT)
print(flush=True)
sys.stdin.readline()
results = {}
for call in json.loads(sys.argv[2]):
    try:
        result = eval(call)
        code = ctypes.get_errno() if result == -1 else 0
    except OSError as error:
        code = error.errno
    results[call] = code
print(json.dumps(results))
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the shim is in C")
@pytest.mark.parametrize("operation", list(Operation))
def test_each_call_fails(tmp_path: Path, operation: Operation) -> None:
    """Each call about a file below the folder has the errno that was set."""
    library = compile_shim(tmp_path)
    assert library is not None
    (below := tmp_path / "below").mkdir()
    shim = Shim(library, tmp_path / "control")
    lines = " ".join(_CALLS[operation].split())
    calls = [call if call.endswith(")") else f"{call})" for call in lines.split("), ")]
    command = [sys.executable, "-c", _PROGRAM, str(below), json.dumps(calls)]
    environment = os.environ | shim.environment
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        failing = shim.fail(operation, below, skip=0, times=1_000_000, error=errno.ESTALE)
        results = json.loads(process.communicate("\n", timeout=60)[0])
    assert results == dict.fromkeys(calls, errno.ESTALE)
    assert failing.count == shim.refused == len(calls)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the shim is in C")
def test_repair_of_calls_that_fail_no_more(tmp_path: Path) -> None:
    """The repair of a fault ends no later one, and each counts its own calls."""
    library = compile_shim(tmp_path)
    assert library is not None
    shim, path = Shim(library, tmp_path / "control"), tmp_path / "file"
    path.touch()

    def examine() -> int:
        """Return the exit code of a program that examines the file."""
        command = [sys.executable, "-c", "import os, sys; os.stat(sys.argv[1])", str(path)]
        environment = os.environ | shim.environment
        return subprocess.run(command, check=False, env=environment).returncode

    first = shim.fail(Operation.NAME, tmp_path, skip=0, times=1_000_000, error=errno.EIO)
    assert examine() == 1
    counted = first.count
    second = shim.fail(Operation.NAME, tmp_path, skip=0, times=1_000_000, error=errno.EIO)
    shim.succeed(first)
    assert examine() == 1
    assert counted == first.count > 0
    assert second.count > 0
    shim.succeed(second)
    assert examine() == 0
    assert shim.refused == first.count + second.count
