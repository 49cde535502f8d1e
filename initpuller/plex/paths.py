"""The folders where Plex's sections look for media, and whether these exist in this container.

The database has absolute paths. It is only read; folders are changed through Plex itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from shared.checks import some
from shared.errors import ConfigurationError, IntegrityError, printable
from shared.plex.library import DATABASE_FOLDER, DATABASES, MEDIA_FOLDERS, server_folder
from shared.plex.sqlite_query import DatabaseError, query

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILES = (
    "SELECT s.id, p.file FROM media_parts p JOIN media_items m ON m.id = p.media_item_id"
    " JOIN library_sections s ON s.id = m.library_section_id"
    " WHERE p.deleted_at IS NULL AND p.file LIKE '/%' ORDER BY s.id, p.file"
)


class Mapping(msgspec.Struct, frozen=True):
    """Media below ``old`` on the VM is below ``new`` here."""

    old: str
    new: str


class Folder(msgspec.Struct, frozen=True):
    """One folder of a section."""

    old: str
    new: str
    """The folder's path here."""
    is_there: bool


class Section(msgspec.Struct):
    """One section of Plex."""

    number: int
    name: str
    folders: list[Folder]
    found: int
    """Number of media files that exist here."""
    missing: list[str]
    """Paths of the media files that do not exist here."""

    @property
    def is_unchanged(self) -> bool:
        """Return whether nothing has to be changed in Plex."""
        return all(folder.is_there and folder.old == folder.new for folder in self.folders)


def parse_mapping(text: str) -> Mapping:
    """Parse ``/old/path=/new/path``; raise ConfigurationError for any other form."""
    old, equals, new = text.partition("=")
    if not equals or not old.startswith("/") or not new.startswith("/"):
        raise ConfigurationError(f"not a mapping of the form /old/path=/new/path: {text!r}")
    return Mapping(old.rstrip("/"), new.rstrip("/"))


def mapped(path: str, mappings: Sequence[Mapping]) -> str:
    """Return the path of ``path`` here, by the longest mapping that applies."""
    for mapping in sorted(mappings, key=lambda each: len(each.old), reverse=True):
        if path == mapping.old or path.startswith(f"{mapping.old}/"):
            return mapping.new + path[len(mapping.old) :]
    return path


def look_at_sections(library: str, mappings: Sequence[Mapping]) -> list[Section]:
    """Return all sections of the Plex whose ``Library`` folder is ``library``.

    Raises:
        ConfigurationError: the folder is not Plex's.
        IntegrityError: the database cannot be read.
    """
    server = server_folder(library)
    if server is None or not os.path.isdir(server):
        raise ConfigurationError("there is no library of Plex here", path=library)
    database = os.path.join(server, DATABASE_FOLDER, DATABASES[0])
    try:
        folders, files = query(database, [MEDIA_FOLDERS, _FILES])
    except (DatabaseError, OSError) as error:
        raise IntegrityError(f"the database cannot be read ({error})", path=database) from error
    sections: dict[int, Section] = {}
    for number, name, path in folders:
        new = mapped(path, mappings)
        section = sections.setdefault(number, Section(number, name, [], 0, []))
        section.folders.append(Folder(path, new, os.path.isdir(new)))
    for number, path in files:
        if number in sections:
            new = mapped(path, mappings)
            if os.path.exists(new):
                sections[number].found += 1
            else:
                sections[number].missing.append(new)
    return list(sections.values())


def as_text(sections: Sequence[Section]) -> str:
    """Return the necessary changes as text, one library section after the other."""
    lines: list[str] = []
    for section in sections:
        files = section.found + len(section.missing)
        lines.append(f"{section.name}: {section.found} of {files} media files are there")
        lines += [f"  {_about(folder)}" for folder in section.folders]
        if section.missing:
            lines.append(f"  missing: {some(section.missing)}")
        if section.is_unchanged:
            lines.append("  nothing is to be changed")
        elif all(folder.is_there for folder in section.folders):
            new = ", ".join(f.new for f in section.folders if f.old != f.new)
            old = ", ".join(f.old for f in section.folders if f.old != f.new)
            lines.append(f"  in Plex: Manage library, Edit, Add folders: add {new}; scan; then")
            lines.append(f"  remove {old}. Keep automatic emptying of trash off until then.")
        else:
            lines.append("  mount the media here at the old path, or say with --map where it is")
    return "\n".join(printable(line) for line in lines)


def _about(folder: Folder) -> str:
    path = folder.old if folder.old == folder.new else f"{folder.old} -> {folder.new}"
    return f"{path} {'is there' if folder.is_there else 'is not there'}"
