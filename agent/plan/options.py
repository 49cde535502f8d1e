"""The options of a plan: names in the cluster, storage, and the volumes of the media."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import msgspec

from shared.errors import ConfigurationError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?")
_LONGEST_RELEASE = 36
"""Letters of a release whose objects have names that no chart cuts short."""


class Output(StrEnum):
    """The way in which the cluster gets its objects."""

    HELM = "helm"
    FLUX = "flux"
    ARGOCD = "argocd"
    KUSTOMIZE = "kustomize"


class MediaVolume(msgspec.Struct, frozen=True):
    """A folder of media on the VM, and what a pod has in its place."""

    old: str
    """Path on the VM. Folders of Plex's libraries at this path or below it are on the volume."""
    claim: str
    """Name of a PersistentVolumeClaim."""
    new: str
    """Path in the pod."""


class PlanOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The command line of ``plexodus-agent plan``, which the folder keeps in ``plan.json``."""

    output: Output
    image: str = "plexodus-puller"
    """Repository of the puller's image, without a tag."""
    namespace: str = "media"
    release: str = "plex"
    """Name of the release of Plex's own chart."""
    storage_class: str = ""
    media: Annotated[list[MediaVolume], msgspec.Meta(max_length=100)] = []

    def checked(self) -> PlanOptions:
        """Return the same, or raise.

        Raises:
            ConfigurationError: If Kubernetes would not take a name, or an image has a tag.
        """
        names = {"namespace": self.namespace, "release": self.release}
        names |= {f"claim of {volume.old}": volume.claim for volume in self.media}
        if self.storage_class:
            names["storage class"] = self.storage_class.replace(".", "-")
        for what, name in names.items():
            if not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"the {what} cannot be called {name!r}",
                    hint="A name in Kubernetes has lower-case letters, digits and '-'.",
                )
        if len(self.release) > _LONGEST_RELEASE:
            raise ConfigurationError(
                f"the release cannot be called {self.release!r}",
                hint=f"Give it a name of {_LONGEST_RELEASE} letters at most.",
            )
        if ":" in self.image.rpartition("/")[2] or not self.image.isprintable() or not self.image:
            raise ConfigurationError(
                f"{self.image!r} is not the repository of an image",
                hint="Give it without a tag, such as registry.example.org/plexodus-puller.",
            )
        return self


def parse_media(text: str) -> MediaVolume:
    """Parse OLD=VOLUME:NEW.

    Raises:
        ConfigurationError: If a part is missing, or a path is not absolute.
    """
    old, _, rest = text.partition("=")
    claim, _, new = rest.partition(":")
    paths = old, new
    if not claim or not all(path.startswith("/") and path.isprintable() for path in paths):
        raise ConfigurationError(
            f"--media {text!r} is not OLD=VOLUME:NEW",
            hint="Such as /mnt/nas=nas:/mnt/nas: path on the VM, claim, path in the pod.",
        )
    return MediaVolume(old.rstrip("/") or "/", claim, new.rstrip("/") or "/")
