"""The command ``plexodus-puller check``."""

from __future__ import annotations

import click

from initpuller.commands.options import AS_JSON, PLEX_URL, TARGET
from shared.program.standard_streams import show


@click.command()
@TARGET
@PLEX_URL
@AS_JSON
def check(*, target: str, plex_url: str, as_json: bool) -> None:
    """Compare the Plex that runs on this volume with the one that was moved.

    Compares identity, version, and the items of each library section with the receipt. Exits 13 if
    it is another server or has lost a section.

    \b
    Example:
      plexodus-puller check --target /config --plex-url http://127.0.0.1:32400
    """
    import msgspec

    from initpuller.plex.api import PlexApi
    from initpuller.plex.facts import check_identity, check_running_version, check_sections
    from initpuller.plex.identity import check_url
    from initpuller.volume.status import moved_plex
    from shared.checks import Outcome, page
    from shared.errors import PlexRefused

    url = check_url(plex_url)
    facts, token = moved_plex(target)
    api = PlexApi(url, token)
    found = [
        check_identity(facts, api.machine_identifier),
        check_running_version(facts, api.version),
        check_sections(facts.sections, api.sections()),
    ]
    show(msgspec.json.encode(found).decode() if as_json else page(found))
    failed = [each.found for each in found if each.outcome is Outcome.FAILURE]
    if failed:
        raise PlexRefused(f"not the server that was moved: {'; '.join(failed)}", path=url)
