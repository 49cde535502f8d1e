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
        "README.md": "README-helm.md",
        "plexodus.yaml": "plexodus.yaml",
        "plex.yaml": "plex.yaml",
        "after.yaml": "plex.yaml",
    },
    Output.KUSTOMIZE: {
        "README.md": "README-kustomize.md",
        "plexodus.yaml": "kustomize-plexodus.yaml",
        "plex.yaml": "kustomize-plex.yaml",
        "kustomization.yaml": "kustomize-kustomization.yaml",
    },
    Output.FLUX: {
        "README.md": "README-flux.md",
        "kustomization.yaml": "flux-kustomization.yaml",
        "source.yaml": "flux-source.yaml",
        "plexodus.yaml": "flux-plexodus.yaml",
        "plex.yaml": "flux-plex.yaml",
        "after/plex.yaml": "flux-plex.yaml",
    },
    Output.ARGOCD: {
        "README.md": "README-argocd.md",
        "plexodus.yaml": "argocd-plexodus.yaml",
        "plex.yaml": "argocd-plex.yaml",
        "after/plex.yaml": "argocd-plex.yaml",
    },
}
"""The name of each file, and its template."""
_PRESEED = {
    Output.HELM: {"preseed.yaml": "preseed.yaml"},
    Output.KUSTOMIZE: {
        "preseed/kustomization.yaml": "kustomize-preseed.yaml",
        "preseed/job.yaml": "kustomize-job.yaml",
    },
    Output.FLUX: {
        "preseed/kustomization.yaml": "flux-kustomization.yaml",
        "preseed/source.yaml": "flux-source.yaml",
        "preseed/plexodus.yaml": "flux-plexodus.yaml",
    },
    Output.ARGOCD: {"preseed/plexodus.yaml": "argocd-plexodus.yaml"},
}
"""The same for the files of the days before the move."""
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
        "unaddressed": _unaddressed(options),
        "regenerable": {printable(path): size(n) for path, n in library.regenerable.items() if n},
        "owner_source": library.owner_source,
        "size": size(library.content_bytes),
        "copy_time": duration(copy_seconds(library.content_bytes)),
        "version": __version__,
        "todo": _todo,
    }
    environment = _environment()
    templates = _FILES[options.output] | (_PRESEED[options.output] if facts.is_long else {})
    return {
        name: environment.get_template(template).render(
            context, is_after=name.startswith("after"), is_preseed=name.startswith("preseed")
        )
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
        for name in files.keys() | written.keys():
            _refuse_other(folder, name, written.get(name))
        for name in written.keys() - files.keys():
            _remove(folder, name)
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


def _refuse_other(folder: str, name: str, digest: str | None) -> None:
    """Raise ConfigurationError if the file there does not have the ``digest`` of the last plan."""
    path = os.path.join(folder, name)
    above = os.path.dirname(path)
    if "/" in name and (os.path.islink(above) or os.path.isfile(above)):
        path = above
    elif not os.path.lexists(path) or _digest_of(path) == digest:
        return
    raise ConfigurationError(
        "this file was not written by the last plan, or was edited since",
        path=path,
        hint="Name another folder, and apply your changes there.",
    )


def _remove(folder: str, name: str) -> None:
    """Remove a file, and the folder that it leaves empty."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, name))
    if above := os.path.dirname(name):
        with suppress(OSError):  # somebody else has a file in it
            os.rmdir(os.path.join(folder, above))


def _digest_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def _names(options: PlanOptions) -> dict[str, str]:
    """Return the names of objects, as both charts make them (Helm's usual full name)."""
    release = options.release
    full = release if _CHART in release else f"{release}-{_CHART}"
    if options.output is Output.KUSTOMIZE:
        full = release
    ours = "plexodus" if release == "plex" else f"plexodus-{release}"
    volume = "config" if options.output is Output.KUSTOMIZE else "pms-config"
    return {
        "ours": ours,
        "settings": f"{ours}-plex-settings",
        "status": f"{ours}-plex-status",
        "secret": f"{ours}-plex-pairing",
        "set": full,
        "pod": f"{full}-0",
        "claim": f"{volume}-{full}-0",
        "job": f"{ours}-plex-ready",
    }


def _unaddressed(options: PlanOptions) -> dict[str, str]:
    """Return each option that is missing for an address, and what is there."""
    found = {
        "--plex-charts": ("the repository of Plex's chart", options.plex_charts),
        "--plexodus-source": ("the git repository of plexodus", options.plexodus_source),
    }
    if not options.output.has_addresses:
        return {}
    return {option: what for option, (what, url) in found.items() if not url}


def _quoted(text: str) -> str:
    """Return a double-quoted string (YAML 1.2, section 7.3.1).

    JSON's differ: they have two escapes for a character beyond U+FFFF.
    """
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return '"{}"'.format("".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped))


def _todo(what: str) -> str:
    """Return what no YAML parser takes: nobody can apply a plan with a gap."""
    return f"@TODO: {printable(what)}"
