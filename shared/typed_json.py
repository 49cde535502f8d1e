"""JSON that becomes an object of a type, in any thread.

At the first use of a type, msgspec reads its annotations. Another thread that uses the type
meanwhile finds a description without some fields, and the process crashes (SIGSEGV, msgspec 0.22).
So the first use of each type has a lock.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_lock = threading.Lock()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_NO_JSON = (UnicodeError, RecursionError)
"""What msgspec raises beside its own errors. A flipped bit can make a text invalid UTF-8."""


def decode(text: bytes | str, kind: type[T]) -> T:
    """Return the object of ``kind`` in ``text``.

    Raises:
        msgspec.DecodeError: the text has no such object.
    """
    decoder: msgspec.json.Decoder[T] = _decoder(kind)
    try:
        return decoder.decode(text)
    except _NO_JSON as error:
        raise msgspec.DecodeError(str(error)) from error


def convert(value: object, kind: type[T]) -> T:
    """Return ``value``, as decoded from JSON or TOML, as an object of ``kind``.

    Raises:
        msgspec.ValidationError: it cannot be one.
    """
    _decoder(kind)
    try:
        return msgspec.convert(value, kind)
    except RecursionError as error:
        raise msgspec.ValidationError(str(error)) from error


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 - any type that msgspec knows
    if (known := _decoders.get(kind)) is None:
        with _lock:
            known = _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    return known
