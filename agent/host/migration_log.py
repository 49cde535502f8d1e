"""The migration log on the VM, as text for people and as JSON lines for programs.

::

    STATE/migration.log     [2026-02-02 10:00:05] Detected Plex version: 1.40.1.8227-c0dd5a73e
    STATE/migration.jsonl   {"at":"2026-02-02T10:00:05+00:00","event":"version","about":"Detec…"}

Every line is complete or absent: it is appended and made durable under a lock. If a crash tore a
line, the rest of it is removed before the next line is written. The log contains no secrets. File
names and text from other programs are written with their control characters escaped.
"""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime

import msgspec
import structlog

from shared.errors import printable
from shared.file_lock import locked_file
from shared.program.logs import without_secrets

TEXT, LINES = "migration.log", "migration.jsonl"
_log = structlog.get_logger("agent")
_CHUNK = 64 * 1024
_MODE = 0o640


class MigrationEvent(msgspec.Struct, frozen=True):
    """One line of the log."""

    at: str
    """Time in RFC 3339, UTC."""
    event: str
    about: str


class MigrationLog:
    """The two files of the log in the folder ``state``. Methods block briefly, in any thread."""

    def __init__(self, state: str) -> None:
        self._text = os.path.join(state, TEXT)
        self._lines = os.path.join(state, LINES)
        self._lock = threading.Lock()

    def write(self, event: str, about: str) -> None:
        """Append a line to both files. If that fails, log a warning and return.

        Args:
            event: one word that names the event, for programs.
            about: a sentence for people. It may contain text from other programs.
        """
        now, about = datetime.now(UTC), without_secrets(printable(about))
        line = MigrationEvent(now.isoformat(timespec="seconds"), event, about)
        text = f"[{now.astimezone().strftime('%Y-%m-%d %H:%M:%S')}] {about}\n"
        _log.info("migration", what=event, about=about)
        try:
            with self._lock:
                _append(self._text, text.encode())
                _append(self._lines, msgspec.json.encode(line) + b"\n")
        except OSError as error:
            _log.warning("cannot write migration log", path=self._text, reason=str(error))

    def size(self) -> int:
        """Return the bytes of the JSON lines.

        Raises:
            OSError: If the file cannot be read.
        """
        try:
            return os.stat(self._lines).st_size
        except FileNotFoundError:
            return 0

    def read(self, offset: int, *, as_json: bool) -> tuple[bytes, int]:
        """Return complete lines from byte ``offset``, up to 64 KiB, and the offset of the next.

        Raises:
            OSError: If the file cannot be read.
        """
        try:
            with open(self._lines if as_json else self._text, "rb") as file:
                file.seek(offset)
                content = file.read(_CHUNK)
        except FileNotFoundError:
            return b"", offset
        whole = content[: content.rfind(b"\n") + 1]
        return whole, offset + len(whole)


def _append(path: str, line: bytes) -> None:
    # 'plexodus-agent undo' may be writing a line at the same time.
    with locked_file(path, _MODE, appends=True) as fd:
        _cut_torn(fd)
        left = memoryview(line)
        while left:
            left = left[os.write(fd, left) :]
        os.fdatasync(fd)


def _cut_torn(fd: int) -> None:
    """Remove everything after the last newline."""
    end = os.fstat(fd).st_size
    position = end
    while position > 0:
        start = max(0, position - _CHUNK)
        found = os.pread(fd, position - start, start).rfind(b"\n")
        if found >= 0:
            position = start + found + 1
            break
        position = start
    if position < end:
        os.ftruncate(fd, position)
