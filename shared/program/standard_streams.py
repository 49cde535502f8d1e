"""The standard streams of a program, whose reader may be gone.

A pipe's reader ends, the disk of a log file is full, a terminal is closed. A message that is lost
then must neither keep Plex stopped nor make a failure of a library that is there. Only a command
whose product is its output fails without it.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import click

from shared.errors import StorageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDOUT, _STDERR = 1, 2


class _Lossy(io.FileIO):
    """A descriptor to which each write succeeds: what it does not take is lost."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what the descriptor takes; report all of it as written if it takes nothing."""
        with suppress(OSError):
            written = super().write(data)
            if written is not None:  # None: it would block
                return written
        return memoryview(data).nbytes


def secure() -> None:
    """Make sure that there are three streams, and that no message to stderr is a failure.

    Otherwise a file of the library could get the descriptor of a stream that was closed, and the
    messages of child processes.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:  # opened the wrong way round: each use of it fails, as if it were closed
            os.set_inheritable(os.open(os.devnull, mode), True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(_STDOUT, "w", encoding="utf-8", closefd=False)
    if sys.stderr is sys.__stderr__:  # a test may have put another in its place
        encoding = "utf-8" if sys.stderr is None else sys.stderr.encoding
        raw = io.BufferedWriter(_Lossy(_STDERR, "wb", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True)


def show(product: str | bytes, *, newline: bool = True) -> None:
    """Print what a command was called for.

    Raises:
        BrokenPipeError: nobody reads any more, as after ``… | head``.
        StorageError: it cannot be written.
    """
    try:
        click.echo(product, nl=newline)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"the output cannot be written ({error.strerror})") from error


def remark(text: str) -> None:
    """Print what a person may like to know about work that is done, whoever reads it."""
    with suppress(OSError):
        click.echo(text)


def end(code: int) -> NoReturn:
    """End the process at once, with exactly this exit code.

    The usual end of the interpreter takes 50 ms, in which signals have their default effect again:
    SIGTERM would replace the code of a pull that has published. It also replaces the code by 120 if
    stdout cannot be flushed. Nothing needs that end: each command has closed what it opened,
    and ``click.echo`` and stderr keep nothing back.
    """
    os._exit(code)
