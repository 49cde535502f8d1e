"""The story of a migration, on the VM: a text that people read, and the same as JSON lines.

::

    STATE/migration.log     [2026-02-02 10:00:05] Detected Plex version: 1.40.1.8227-c0dd5a73e
    STATE/migration.jsonl   {"at":"2026-02-02T10:00:05+00:00","event":"version","about":"Detec…"}

A line is there whole or not at all: it is appended and made durable under a lock, and what a crash
has torn is cut off before the next one. Neither holds anything secret: no token is ever passed to
it, and names of others are shown with their control characters escaped.
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
    """One line."""

    at: str
    """RFC 3339, UTC."""
    event: str
    about: str


class MigrationLog:
    """Both files. Its methods block for a moment, and may be called from any thread.

    Args:
        state: the agent's state folder.
    """

    def __init__(self, state: str) -> None:
        self._text = os.path.join(state, TEXT)
        self._lines = os.path.join(state, LINES)
        self._lock = threading.Lock()

    def write(self, event: str, about: str) -> None:
        """Append a line to both. If the disk is full, the journal says so, and the move continues.

        Args:
            event: one word, for programs.
            about: a sentence for people, which may have others' words in it.
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
            _log.warning("the migration log is not written", path=self._text, reason=str(error))

    def read(self, offset: int, *, as_json: bool) -> tuple[bytes, int]:
        """Whole lines from ``offset`` on, some 64 KiB at most; and where to go on.

        Raises:
            OSError: as the filesystem says.
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
    # The lock keeps a line whole that 'plexodus-agent undo' writes at the same time.
    with locked_file(path, _MODE, appends=True) as fd:
        _cut_torn(fd)
        left = memoryview(line)
        while left:
            left = left[os.write(fd, left) :]
        os.fdatasync(fd)


def _cut_torn(fd: int) -> None:
    """Remove what is after the last newline."""
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
