"""The files of a plan: made from templates, and written."""

from __future__ import annotations

import hashlib
import os
import shlex
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import jinja2
import msgspec

from agent.plan.claim import arithmetic, copy_seconds
from agent.plan.media import mappings, media_mounts
from agent.plan.options import Output
from agent.plan.record import RECORD, PlanRecord
from shared import __version__
from shared.checks import duration, size
from shared.errors import ConfigurationError, printable, storage_errors

if TYPE_CHECKING:
    from agent.plan.library import PlannedLibrary
    from agent.plan.options import PlanOptions
    from agent.plan.record import Facts

_FILES = {
    Output.HELM: {
        "README.md": "README.md",
        "plexodus.yaml": "plexodus.yaml",
        "plex.yaml": "plex.yaml",
        "after.yaml": "plex.yaml",
    },
    Output.KUSTOMIZE: {
        "README.md": "README.md",
        "plexodus.yaml": "kustomize-plexodus.yaml",
        "plex.yaml": "kustomize-plex.yaml",
        "kustomization.yaml": "kustomize-kustomization.yaml",
    },
}
"""The name of each file, and its template."""
_PRESEED = "preseed.yaml"
_CHART = "plex-media-server"


def render(library: PlannedLibrary, options: PlanOptions, facts: Facts) -> dict[str, str]:
    """Return the text of each file, by its name. The same arguments give the same text.

    Raises:
        ConfigurationError: If a folder of media has a path that cannot be mounted.
    """
    mounts = media_mounts(facts.media, options.media)
    context = {
        "facts": facts,
        "options": options,
        "names": _names(options),
        "claim": f"{facts.claim_gib}Gi",
        "arithmetic": arithmetic(library.content_bytes, library.entries, facts.claim_gib),
        "media": mounts,
        "mapped": mappings(mounts),
        "missing": [mount.old for mount in mounts if not mount.claim],
        "regenerable": {printable(path): size(n) for path, n in library.regenerable.items() if n},
        "size": size(library.content_bytes),
        "copy_time": duration(copy_seconds(library.content_bytes)),
        "version": __version__,
        "todo": _todo,
    }
    environment = _environment()
    templates = dict(_FILES[options.output])
    if facts.is_long and options.output is Output.HELM:
        templates[_PRESEED] = _PRESEED
    return {
        name: environment.get_template(template).render(context, is_after=name == "after.yaml")
        for name, template in templates.items()
    }


def write(
    folder: str,
    files: dict[str, str],
    options: PlanOptions,
    facts: Facts,
    before: PlanRecord | None,
) -> None:
    """Write the files and their record into ``folder``, and remove those of the plan ``before``.

    Raises:
        ConfigurationError: If a file in the place of one of them was written by somebody else.
        StorageError: If a file cannot be written.
    """
    written = before.files if before else {}
    with storage_errors(folder):
        os.makedirs(folder, exist_ok=True)
        for name in files.keys() | written.keys():
            path = os.path.join(folder, name)
            if os.path.lexists(path) and _digest_of(path) != written.get(name):
                raise ConfigurationError(
                    "this file was not written by the last plan, or was edited since",
                    path=path,
                    hint="Name another folder, and apply your changes there.",
                )
        for name in written.keys() - files.keys():
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
        for name, text in files.items():
            _write(os.path.join(folder, name), text.encode())
        digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
        record = msgspec.json.encode(PlanRecord(options, facts, digests))
        _write(os.path.join(folder, RECORD), msgspec.json.format(record) + b"\n")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("agent.plan"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - YAML; the filters below escape
    )
    environment.filters |= {"quoted": _quoted, "shown": printable, "argument": shlex.quote}
    return environment


def _digest_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _names(options: PlanOptions) -> dict[str, str]:
    """Return the names of objects, as both charts make them (Helm's usual full name)."""
    release = options.release
    full = release if _CHART in release else f"{release}-{_CHART}"
    if options.output is Output.KUSTOMIZE:
        full = release
    ours = "plexodus" if release == "plex" else f"plexodus-{release}"
    return {
        "ours": ours,
        "settings": f"{ours}-plex-settings",
        "status": f"{ours}-plex-status",
        "secret": f"{ours}-plex-pairing",
        "set": full,
        "pod": f"{full}-0",
        "claim": f"pms-config-{full}-0",
    }


def _quoted(text: str) -> str:
    """Return a double-quoted string (YAML 1.2, section 7.3.1).

    JSON's differ: they have two escapes for a character beyond U+FFFF.
    """
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return '"{}"'.format("".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped))


def _todo(what: str) -> str:
    """Return what no YAML parser takes: nobody can apply a plan with a gap."""
    return f"@TODO: {printable(what)}"
