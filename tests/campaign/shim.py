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
    NAME = 8
    """Calls with the name of a file: to examine, open, rename or remove it, and so on."""
    OPEN = 16
    """Calls about an open file or folder: its status, attributes, length and names."""


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


class Failing:
    """Calls that fail from now on, until they succeed again or others fail instead.

    Args:
        control: the control file.
        error: their errno; 0 if they read or write fewer bytes.
    """

    def __init__(self, control: _Control, error: int) -> None:
        self.error = error
        self._control, self._before = control, control.happened
        self._count: int | None = None

    @property
    def count(self) -> int:
        """Number of calls that have failed."""
        found = self._control.happened - self._before if self._count is None else self._count
        return int(found)

    @property
    def is_over(self) -> bool:
        """Whether these calls succeed again."""
        return self._count is not None

    def end(self) -> None:
        """Count no later calls."""
        self._count = self.count


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
        self._plans: list[Failing] = []
        self.environment = {
            "LD_PRELOAD": str(library),
            "CAMPAIGN_SHIM": str(control),
            SWITCH: "0",  # the accelerator makes system calls without the C library
        }
        """The variables of a program that has the library."""

    def fail(
        self, operation: Operation, below: Path, *, skip: int, times: int, error: int
    ) -> Failing:
        """Have calls fail from now on, instead of those that fail until now.

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
        self._plans.append(Failing(control, error))
        control.operation = operation
        control.times = times
        return self._plans[-1]

    def succeed(self, failing: Failing | None = None) -> None:
        """Have all calls succeed again; with ``failing``, only if these are the ones that fail."""
        if not self._plans or self._plans[-1].is_over or failing not in (None, self._plans[-1]):
            return
        self._control.times = 0
        self._control.operation = 0
        self._plans[-1].end()

    @property
    def refused(self) -> int:
        """Number of calls that have failed with an error."""
        return sum(each.count for each in self._plans if each.error)

    def shift_clock(self, seconds: int) -> None:
        """Set the difference of the wall clock to the machine's."""
        self._control.seconds = seconds
