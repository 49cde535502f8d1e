"""The preloaded library that fails system calls of one program, and shifts its wall clock."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
from enum import IntFlag
from pathlib import Path

from shared.native import SWITCH

_SOURCE = Path(__file__).with_name("shim.c")
_LONGEST = 4096


class Operation(IntFlag):
    """Calls that can fail: the values of ``shim.c``."""

    READ = 1
    WRITE = 2
    SYNC = 4


class _Control(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_int64),
        ("operation", ctypes.c_int32),
        ("skip", ctypes.c_int32),
        ("times", ctypes.c_int32),
        ("error", ctypes.c_int32),
        ("happened", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("below", ctypes.c_char * _LONGEST),
    )


def compile_shim(folder: Path) -> Path | None:
    """Compile the library into ``folder``, and return its path; None without a C compiler."""
    if shutil.which("gcc") is None:
        return None
    path = folder / "shim.so"
    command: list[str | Path] = ["gcc", "-shared", "-fPIC", "-O2", "-o", path, _SOURCE, "-ldl"]
    subprocess.run(command, check=True)
    return path


class Shim:
    """The library in every process of one program, which share one control file.

    Args:
        library: the compiled library.
        control: path of the control file, which is created.
    """

    def __init__(self, library: Path, control: Path) -> None:
        control.write_bytes(bytes(ctypes.sizeof(_Control)))
        with control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._control = _Control.from_buffer(self._memory)
        self.environment = {
            "LD_PRELOAD": str(library),
            "CAMPAIGN_SHIM": str(control),
            SWITCH: "0",  # the accelerator makes system calls without the C library
        }
        """The variables of a program that has the library."""

    def fail(self, operation: Operation, below: Path, *, skip: int, times: int, error: int) -> None:
        """Have calls fail from now on.

        Args:
            operation: the calls.
            below: the folder of their files.
            skip: number of calls that still succeed.
            times: number of calls that fail then.
            error: their errno; 0 to have them read or write fewer bytes than requested.
        """
        self.succeed()
        control = self._control
        control.below = bytes(below)
        control.skip, control.error = skip, error
        control.operation = operation
        control.times = times

    def succeed(self) -> None:
        """Have all calls succeed again."""
        self._control.times = 0
        self._control.operation = 0

    @property
    def failures(self) -> int:
        """Number of calls that have failed."""
        return int(self._control.happened)

    def shift_clock(self, seconds: int) -> None:
        """Set the difference of the wall clock to the machine's."""
        self._control.seconds = seconds
