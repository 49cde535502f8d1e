"""Trees on disk for property tests: mostly usual entries, a few that the accelerator leaves out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

_CONTENT = bytes(range(1, 250)) * 40


class _Step(NamedTuple):
    """One entry to make."""

    kind: str
    name: bytes
    number: int
    """A size, or what makes an odd attribute."""
    folder: int
    """Number of the folder to make it in."""


_USUAL_NAMES = st.one_of(
    st.sampled_from([b"a", b"b.db", b"n" * 85, b"n" * 95, b"n" * 99, b"n" * 155, b'q"\\', b"\t"]),
    st.text("abc. -\x7f", min_size=1, max_size=120)
    .filter(lambda name: name not in (".", ".."))
    .map(os.fsencode),
)
_ODD_NAMES = st.sampled_from([b"\xff", "é".encode(), b"n" * 255])
STEPS = st.lists(
    st.builds(
        _Step,
        st.sampled_from("FFFFFFddslxot"),
        st.one_of(*[_USUAL_NAMES] * 9, _ODD_NAMES),
        st.integers(0, 1500),
        st.integers(0, 9),
    ),
    max_size=20,
)


def grow(top: Path, steps: list[_Step]) -> None:
    """Make the folder ``top``, and in it what ``steps`` say."""
    top.mkdir()
    folders, files = [os.fsencode(top)], list[bytes]()
    for step in steps:
        path = folders[step.folder % len(folders)] + b"/" + step.name
        if os.path.lexists(path) or len(path) > 2000:
            continue
        if step.kind == "d":
            os.mkdir(path)
            folders.append(path)
        elif step.kind == "s":
            os.symlink(b"t" * (step.number % 130 + 1), path)
        elif step.kind == "l" and files:
            os.link(files[step.number % len(files)], path)
        else:
            _write(path, step)
            files.append(path)


def _write(path: bytes, step: _Step) -> None:
    with open(path, "wb") as file:
        file.write(_CONTENT[: step.number])
    if step.kind == "x":
        os.setxattr(path, "user.x", b"y")
    elif step.kind == "o" and os.geteuid() == 0:
        os.chown(path, 2**21 - step.number % 2, 2**21 - step.folder % 2)
    elif step.kind == "t":
        os.utime(path, ns=(0, (step.number - 700) * 10**17))
