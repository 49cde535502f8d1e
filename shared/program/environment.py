"""``PLEXODUS_…`` variables: each is an option, and a misspelled one is an error, not silence."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from shared.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PREFIX = "PLEXODUS_"
# What Kubernetes sets in every pod beside a Service called "plexodus" or "plexodus-…".
_SERVICE = re.compile(
    r"PLEXODUS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


def check_environment(environment: Mapping[str, str], known: Collection[str]) -> None:
    """Refuse a ``PLEXODUS_…`` variable that is not ``known``.

    Raises:
        ConfigurationError: there is one; its nearest neighbour is named.
    """
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in known or _is_service_link(name, value):
            continue
        near = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.0)
        raise ConfigurationError(
            f"unknown environment variable {name}", hint=f"Did you mean {near[0]}?"
        )


def _is_service_link(name: str, value: str) -> bool:
    """Service links hold addresses, ports and protocol names, nothing else."""
    return _SERVICE.fullmatch(name) is not None and (
        re.fullmatch(r"((tcp|udp|sctp)://)?[0-9a-fA-F.:\[\]]+|tcp|udp|sctp", value) is not None
    )
