"""The options of a plan: names in the cluster, storage, and the volumes of the media."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from enum import StrEnum
from typing import Annotated

import msgspec

from agent.secret_formats import KUBERNETES_NAME
from shared.errors import ConfigurationError

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAMESPACE = 63
_LONGEST_RELEASE = 34
"""Letters of a release whose StatefulSet has at most 52: its pods have a label with 11 more."""
_IMAGE = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_MEDIA = re.compile(r"(/.*)=([^=:/]+):(/.*)", re.DOTALL)
_NAME = "[A-Za-z0-9][A-Za-z0-9.-]*"
_HOST = rf"({_NAME}|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?"
_USER = "[A-Za-z0-9_][A-Za-z0-9._-]*@"
_PART = "[A-Za-z0-9._~/%+,:@-]"
"""A character of a path. There is no query, because it may have a token."""
_WEB = re.compile(rf"https://{_HOST}(/{_PART}*)?")
_FLUX_GIT = re.compile(rf"(https://{_HOST}|ssh://({_USER})?{_HOST})/{_PART}+")
"""The addresses of a GitRepository, by its definition."""
_GIT = re.compile(rf"{_FLUX_GIT.pattern}|git://{_HOST}/{_PART}+|{_USER}{_NAME}:{_PART}+")
_RESERVED = ("/config", "/transcode")
"""Where Plex's image has volumes of its own."""


class Output(StrEnum):
    """The way in which the cluster gets its objects."""

    HELM = "helm"
    KUSTOMIZE = "kustomize"
    FLUX = "flux"
    ARGOCD = "argocd"

    @property
    def has_addresses(self) -> bool:
        """Whether the cluster itself gets both charts, so that the plan names their places."""
        return self in {Output.FLUX, Output.ARGOCD}


class MediaVolume(msgspec.Struct, frozen=True):
    """A folder of media where Plex runs now, and what the pod has in its place."""

    old: str
    """Path for Plex now. Folders of its libraries at this path or below it are on the volume."""
    claim: str
    """Name of a PersistentVolumeClaim."""
    new: str
    """Path in the pod."""


class PlanOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The command line of ``plexodus-agent plan``, which the folder keeps."""

    output: Output
    image: str = "plexodus-puller"
    """Repository of the puller's image, without a tag."""
    namespace: str = "media"
    release: str = "plex"
    """Name of the release of Plex's own chart."""
    storage_class: str = ""
    media: Annotated[list[MediaVolume], msgspec.Meta(max_length=100)] = []
    plex_charts: str = ""
    """Address of the repository of Plex's chart; empty if it is not known."""
    plexodus_source: str = ""
    """Address of the git repository of plexodus; empty if it is not known."""

    def checked(self) -> PlanOptions:
        """Return the same, or raise.

        Raises:
            ConfigurationError: If Kubernetes would not take a name, two volumes collide, or an
                address has another form than the cluster takes.
        """
        _check_label("namespace", self.namespace, _LONGEST_NAMESPACE)
        _check_label("release", self.release, _LONGEST_RELEASE)
        names = [volume.claim for volume in self.media] + [self.storage_class or "default"]
        for name in names:
            if not KUBERNETES_NAME.fullmatch(name):
                raise ConfigurationError(
                    f"Kubernetes has no claim and no storage class called {name!r}",
                    hint="A name has lower-case letters, digits, '-' and '.'.",
                )
        if not _IMAGE.fullmatch(self.image) or ":" in self.image.rpartition("/")[2]:
            raise ConfigurationError(
                f"{self.image!r} is not the repository of an image",
                hint="Give it without a tag, such as registry.example.org/plexodus-puller.",
            )
        for paths in ([each.old for each in self.media], [each.new for each in self.media]):
            if len(set(paths)) < len(paths):
                twice = max(paths, key=paths.count)
                raise ConfigurationError(f"two --media options are for one path: {twice}")
        self._check_address("--plex-charts", self.plex_charts, _WEB)
        git = _FLUX_GIT if self.output is Output.FLUX else _GIT
        self._check_address("--plexodus-source", self.plexodus_source, git)
        return self

    def _check_address(self, option: str, url: str, form: re.Pattern[str]) -> None:
        if url and not self.output.has_addresses:
            raise ConfigurationError(
                f"a plan for {self.output} has no place for {option}",
                hint="It is for --output flux and --output argocd.",
            )
        if url and not form.fullmatch(url):
            ways = "https://" if form is _WEB else "https:// or ssh://"
            raise ConfigurationError(
                f"a plan for {self.output} cannot have the address that {option} gives",
                hint=f"Give one that begins with {ways}, such as https://git.example.org/plexodus,"
                " without a password, because nothing in the folder is secret.",
            )


def parse_media(text: str) -> MediaVolume:
    """Parse OLD=VOLUME:NEW.

    Raises:
        ConfigurationError: If a part is missing, or a path cannot be mounted.
    """
    parts = _MEDIA.fullmatch(text)
    old, claim, new = parts.groups() if parts else ("", "", "")
    old, new = posixpath.normpath(old), posixpath.normpath(new)
    if not is_mountable(old) or ":" in new or not can_be_mounted_at(new):
        raise ConfigurationError(
            f"--media {text!r} is not OLD=VOLUME:NEW",
            hint="Such as /mnt/nas=nas:/mnt/nas: path for Plex now, claim, path in the pod."
            f" Plex's image has {', '.join(_RESERVED)} itself.",
        )
    return MediaVolume(old, claim, new)


def is_mountable(path: str) -> bool:
    """Return whether ``path`` is absolute, and can stand in a manifest and in a list of lines."""
    is_plain = not any(unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"} for each in path)
    return is_plain and path.startswith("/") and not path.startswith("//")


def can_be_mounted_at(path: str) -> bool:
    """Return whether a volume at ``path`` hides nothing of the image of Plex."""
    return (
        is_mountable(path) and path != "/" and not any(is_below(path, each) for each in _RESERVED)
    )


def is_below(path: str, above: str) -> bool:
    """Return whether ``path`` is ``above``, or in it."""
    return path == above or path.startswith(above.rstrip("/") + "/")


def _check_label(what: str, name: str, longest: int) -> None:
    if len(name) > longest or not _LABEL.fullmatch(name):
        raise ConfigurationError(
            f"the {what} cannot be called {name!r}",
            hint="Give it a name of lower-case letters, digits and '-' that begins with a letter,"
            f" of {longest} characters at most.",
        )
