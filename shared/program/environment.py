"""The check of ``PLEXODUS_…`` variables, which reports misspelled ones."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Kubernetes sets these variables in every pod if a Service is called "plexodus" or "plexodus-…".
_SERVICE = re.compile(
    r"PLEXODUS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


def check_environment(environment: Mapping[str, str], known: Collection[str]) -> None:
    """Raise ConfigurationError for a ``PLEXODUS_…`` variable that is not ``known``.

    The hint names the most similar known one.
    """
    for name, value in environment.items():
        if not name.startswith("PLEXODUS_") or name in known or _is_service_link(name, value):
            continue
        near = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.0)
        raise ConfigurationError(
            f"unknown environment variable {name}", hint=f"Did you mean {near[0]}?"
        )


def _is_service_link(name: str, value: str) -> bool:
    """Return whether the variable is a service link: its value is an address, port or protocol."""
    return _SERVICE.fullmatch(name) is not None and (
        re.fullmatch(r"((tcp|udp|sctp)://)?[0-9a-fA-F.:\[\]]+|tcp|udp|sctp", value) is not None
    )
