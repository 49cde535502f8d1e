"""Small records on the volume, each written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TypeVar

import msgspec

from shared import typed_json
from shared.durable import write_durably
from shared.errors import StorageError, storage_error, storage_errors

T = TypeVar("T")


def load_record(path: str, kind: type[T]) -> T | None:
    """Return the record in the file ``path``; None if there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return typed_json.decode(file.read(), kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.DecodeError as error:
        raise StorageError(
            f"a record of the puller that cannot be read ({error})",
            path=path,
            hint="It is written in one step, so another program changed it. Move it away to start "
            "again.",
        ) from error
    except OSError as error:
        raise storage_error(error, path) from error


def save_record(path: str, record: msgspec.Struct) -> None:
    """Make ``record`` durable in the file ``path``."""
    with storage_errors(path):
        write_durably(path, msgspec.json.format(msgspec.json.encode(record)) + b"\n")


def drop_files(*paths: str) -> None:
    """Remove records that are not valid any more; missing ones are fine."""
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
