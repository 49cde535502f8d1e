"""Which library this is, and the descriptor through which everything of it is read."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass

from shared.errors import ConfigurationError, IllegalPath
from shared.memberpath import check_root_name
from shared.protocol import Library

_MACHINE_ID = "/etc/machine-id"


@dataclass(frozen=True)
class LibrarySource:
    """The library folder, held open by its parent so that it is found by its last name."""

    base: int
    """Descriptor of the folder that the library is in."""
    name: bytes
    about: Library


def open_library(path: str) -> LibrarySource:
    """The library at ``path``.

    Raises:
        ConfigurationError: it is no readable folder, or has a name that cannot be moved.
    """
    real = os.path.realpath(path)
    parent, name = os.path.split(real)
    try:
        check_root_name(os.fsencode(name))
        about = Library(id=_identity(real), name=name, host=socket.gethostname(), path=real)
        name.encode()
        base = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (IllegalPath, UnicodeError) as error:
        raise ConfigurationError(f"not a library that can be moved ({error})", path=path) from error
    except OSError as error:
        raise ConfigurationError(
            f"the library cannot be opened ({error.strerror})", path=path
        ) from error
    source = LibrarySource(base, os.fsencode(name), about)
    if (reason := why_unreadable(source)) is not None:
        os.close(base)
        raise ConfigurationError(
            f"the library cannot be read ({reason})",
            path=path,
            hint="--library takes the folder called Library; the agent must be able to read it.",
        )
    return source


def why_unreadable(source: LibrarySource) -> str | None:
    """What keeps the library's top folder from being listed, or None."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(source.name, flags, dir_fd=source.base))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return None


def _identity(path: str) -> str:
    """A name for this folder of this machine.

    The machine's id itself stays secret, as machine-id(5) asks.
    """
    try:
        with open(_MACHINE_ID, "rb") as file:
            machine = file.read()
    except OSError:
        machine = socket.gethostname().encode()
    text = b"plexodus library\0" + machine.strip() + b"\0" + os.fsencode(path)
    return hashlib.sha256(text).hexdigest()[:32]
