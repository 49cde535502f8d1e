"""``SHA256SUMS`` has the lines that the real ``sha256sum`` writes and accepts."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ProtocolViolation
from shared.frames.sha256sums import MAX_LINE, format_sum, parse_sum, read_sums

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [
    b"plain",
    b"with blank",
    b"  leading blanks",
    b"*star",
    b"#comment",
    b"-dash",
    b"new\nline",
    b"back\\slash",
    b"back\\nslash n",
    b"carriage\rreturn",
    b"all\\of\nthem\r\\r",
    b"\\",
    b"\n",
    b"caf\xe9 not UTF-8",
    "déjà vu".encode(),
]


def test_same_lines_as_the_real_program(tmp_path: Path) -> None:
    """The lines equal those of ``sha256sum`` for each odd name, and it accepts ours."""
    folder = os.fsencode(tmp_path)
    for name in NAMES:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(name)
    ours = b"".join(format_sum(hashlib.sha256(name).digest(), name) for name in NAMES)

    written = subprocess.run(
        [b"sha256sum", b"--", *NAMES], cwd=folder, check=True, capture_output=True
    )
    assert ours == written.stdout
    subprocess.run(
        ["sha256sum", "--check", "--strict"],
        input=ours,
        cwd=folder,
        check=True,
        capture_output=True,
    )


@given(st.binary(min_size=1, max_size=80).filter(lambda name: b"\0" not in name))
def test_line_is_read_back(path: bytes) -> None:
    """Any path becomes one line, and path and digest are read back from it."""
    digest = hashlib.sha256(path).digest()
    line = format_sum(digest, path)
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert parse_sum(line.removesuffix(b"\n")) == (digest, path)


BAD = {
    "empty": b"",
    "html": b"<html>",
    "short_digest": b"a" * 63 + b"  name",
    "capitals": b"A" * 64 + b"  name",
    "no_name": b"a" * 64 + b"  ",
    "one_blank": b"a" * 64 + b" name",
    "bsd_style": b"SHA256 (name) = " + b"a" * 64,
}


@pytest.mark.parametrize("line", BAD.values(), ids=BAD.keys())
def test_invalid_line_is_refused(line: bytes) -> None:
    """An invalid line is refused, not skipped."""
    with pytest.raises(ProtocolViolation):
        parse_sum(line)


def test_lines_are_read_without_comments() -> None:
    """Comments are skipped, and the last line may lack its newline."""
    text = b"# comment\n" + format_sum(bytes(32), b"a") + format_sum(bytes(32), b"b").strip()
    assert list(read_sums(io.BytesIO(text))) == [(bytes(32), b"a"), (bytes(32), b"b")]


def test_giant_line_is_not_read() -> None:
    """A line is refused after the length of the longest path."""
    file = io.BytesIO(b"#" * (100 * MAX_LINE))
    with pytest.raises(ProtocolViolation):
        list(read_sums(file))
    assert file.tell() <= MAX_LINE + 1
