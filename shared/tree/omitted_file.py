"""The file that lists what a scan left out: written by the scan as it goes, read piece by piece."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Self

from shared.errors import OmittedListMalformed, OmittedListTooLarge, OmittedListWrong
from shared.tree.line_file import PIECE, LineFormat, compressor, read_pieces
from shared.tree.omitted import Reason, checked_omitted, format_omitted, parse_omitted
from shared.wire.protocol import OmittedList

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from shared.tree.omitted import Omitted

_FORM = LineFormat("list of omitted entries", OmittedListMalformed, OmittedListTooLarge)


class OmittedWriter:
    """Writes a new file, one record after the other; holds one piece of it in memory.

    Args:
        path: the file, which must not be there.

    Raises:
        OSError: as the filesystem says; :meth:`add` and :meth:`finish` raise it, too.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "xb")  # noqa: SIM115 - closed with the writer
        self._zstd = compressor()
        self._digest = hashlib.sha256()
        self._lines: list[bytes] = []
        self._size = self._excluded = self._skipped = 0

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()

    def add(self, record: Omitted) -> None:
        """Append ``record``; its place is after all others."""
        line = format_omitted(record)
        self._lines.append(line)
        self._size += len(line)
        if record.reason is Reason.EXCLUDED:
            self._excluded += 1
        else:
            self._skipped += 1
        if self._size >= PIECE:
            self._close_piece()

    def finish(self) -> OmittedList:
        """Make the file durable, and return what is announced of it.

        Without a single record it has one empty piece: tools take an empty file for a damaged one.
        """
        if self._lines or not self._file.tell():
            self._close_piece()
        self._file.flush()
        os.fsync(self._file.fileno())
        size, digest = self._file.tell(), self._digest.hexdigest()
        return OmittedList(self._excluded, self._skipped, size, digest)

    def _close_piece(self) -> None:
        packed = self._zstd.compress(b"".join(self._lines))
        self._digest.update(packed)
        self._file.write(packed)
        self._lines.clear()
        self._size = 0


def read_omitted(path: str) -> Iterator[Omitted]:
    """Yield the records in the file ``path``, one piece in memory.

    Raises:
        OSError: as the filesystem says.
        OmittedListMalformed, OmittedListTooLarge: it is not such a file.
    """
    for offset, text in read_pieces(path, _FORM):
        is_empty_list = not text and offset == 0
        if not is_empty_list and not text.endswith(b"\n"):
            raise OmittedListMalformed(
                "a piece of the list of omitted entries ends within a line", path=path
            )
        yield from map(parse_omitted, text.splitlines())


def check_omitted(path: str, announced: OmittedList, root: bytes) -> Iterator[Omitted]:
    """Yield the records in the file ``path``, which an agent sent; the last step checks its digest.

    Args:
        path: the file.
        announced: what the agent said about it.
        root: the library's own name.

    Raises:
        OSError: as the filesystem says.
        OmittedListMalformed, OmittedListTooLarge, IllegalPath, EntriesOutOfOrder: it is not a list
            that we take.
        OmittedListWrong: it is not the one that was announced.
    """
    most, found = announced.excluded + announced.skipped, [0, 0]
    for record in checked_omitted(read_omitted(path), root):
        found[record.reason is not Reason.EXCLUDED] += 1
        if sum(found) > most:
            raise OmittedListWrong(
                f"the agent lists more than the {most} omitted entries announced"
            )
        yield record
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != announced.sha256:
        raise OmittedListWrong("the list of omitted entries is not the announced one", path=path)
    if found != [announced.excluded, announced.skipped]:
        raise OmittedListWrong(
            f"the agent lists (excluded, skipped) {tuple(found)} entries; it announced"
            f" {(announced.excluded, announced.skipped)}"
        )
