"""Bytes that were damaged on their way, or forged."""

from __future__ import annotations

from hypothesis import strategies as st

_SPECIAL = [b"", b"0", b'"', b"\n", b"\r", b"\\", b"{", b" ", b"-", b"\xff"]


def damaged(text: bytes) -> st.SearchStrategy[bytes]:
    """Return ``text`` with a few bytes in one place that are others, missing, or too many."""
    parts = st.sampled_from(_SPECIAL) | st.binary(max_size=3)
    return st.builds(
        lambda start, cut, part: text[:start] + part + text[start + cut :],
        st.integers(0, len(text)),
        st.integers(0, 2),
        parts,
    )
