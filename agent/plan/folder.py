"""The files of a plan: made from templates, written, and compared with a plan from before."""

from __future__ import annotations

import difflib
import json
import os
from typing import TYPE_CHECKING

import jinja2
import msgspec

from agent.plan.claim import claim_for, copy_seconds, is_long
from agent.plan.media import media_mounts
from agent.plan.options import Output, PlanOptions
from shared import __version__
from shared.checks import duration, size
from shared.errors import ConfigurationError, printable, storage_errors

if TYPE_CHECKING:
    from agent.plan.library import PlannedLibrary

OPTIONS_FILE = "plan.json"
_SHARED = ("README.md", "plexodus.yaml")
_FILES = {
    Output.HELM: (*_SHARED, "plex.yaml"),
    Output.FLUX: ("README.md", "source.yaml", "plexodus.yaml", "plex.yaml", "kustomization.yaml"),
    Output.ARGOCD: (*_SHARED, "plex.yaml"),
    Output.KUSTOMIZE: (*_SHARED, "plex.yaml", "kustomization.yaml"),
}
_CHART = "plex-media-server"


def render(library: PlannedLibrary, options: PlanOptions) -> dict[str, str]:
    """Return the text of each file, by its name. The same arguments give the same text.

    Raises:
        ConfigurationError: If a folder of media has a path that cannot be mounted.
    """
    mounts = media_mounts(library.media, options.media)
    seconds = copy_seconds(library.content_bytes)
    names = list(_FILES[options.output])
    if is_long(seconds) and options.output is not Output.KUSTOMIZE:
        names.append("preseed.yaml")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("agent.plan"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - YAML; the filters below escape
    )
    environment.filters |= {"quoted": _quoted, "shown": printable}
    environment.globals |= {
        "library": library,
        "options": options,
        "names": _names(options),
        "claim": claim_for(library.content_bytes),
        "media": mounts,
        "mapped": [mount for mount in mounts if mount.old != mount.new],
        "missing": [mount.old for mount in mounts if not mount.claim],
        "regenerable": {printable(path): size(n) for path, n in library.regenerable.items() if n},
        "size": size(library.content_bytes),
        "copy_time": duration(seconds),
        "is_long": is_long(seconds),
        "version": __version__,
        "todo": _todo,
    }
    texts = {name: environment.get_template(_template(options.output, name)) for name in names}
    found = {name: template.render() for name, template in texts.items()}
    encoded = msgspec.json.format(msgspec.json.encode(options), indent=2).decode()
    return found | {OPTIONS_FILE: f"{encoded}\n"}


def write(folder: str, files: dict[str, str]) -> None:
    """Write the files into ``folder``, which is made if it is not there.

    Raises:
        StorageError: If that fails.
    """
    with storage_errors(folder):
        os.makedirs(folder, exist_ok=True)
        for name, text in files.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)


def read_options(folder: str) -> PlanOptions:
    """Return the options of the plan in ``folder``.

    Raises:
        ConfigurationError: If there is no plan.
    """
    path = os.path.join(folder, OPTIONS_FILE)
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=PlanOptions)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(
            f"there is no plan to compare with ({error})",
            path=path,
            hint="Name the folder that 'plexodus-agent plan --directory' wrote.",
        ) from error


def changes(folder: str, files: dict[str, str]) -> str:
    """Return how ``files`` differ from those in ``folder``, as a unified diff; empty if not."""
    lines: list[str] = []
    for name, text in files.items():
        path = os.path.join(folder, name)
        before = ""
        if os.path.exists(path):
            with storage_errors(path), open(path, encoding="utf-8") as file:
                before = file.read()
        lines += difflib.unified_diff(
            before.splitlines(keepends=True), text.splitlines(keepends=True), path, f"now/{name}"
        )
    return "".join(lines)


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
    }


def _template(output: Output, name: str) -> str:
    """Return the template of a file: its own one for this output, or the one for all."""
    own = f"{output}-{name}"
    folder = os.path.join(os.path.dirname(__file__), "templates")
    return own if os.path.exists(os.path.join(folder, own)) else name


def _quoted(text: str) -> str:
    """Return a YAML string: JSON is YAML."""
    return json.dumps(text, ensure_ascii=False)


def _todo(what: str) -> str:
    """Return what no YAML parser takes: nobody can apply a plan with a gap."""
    return f"@TODO: {printable(what)}"
