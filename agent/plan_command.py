"""The command ``plexodus-agent plan``."""

from __future__ import annotations

import os

import click

from agent.cli_options import CONFIG, DATABASE_CHECK, LIBRARY
from agent.plan.library import read_library
from agent.plan.options import Output, PlanOptions, parse_media
from agent.plan.record import differences, facts_of, read_record
from agent.plex.services import find_library
from agent.settings import load_settings
from agent.source.library import open_library
from shared.errors import ConfigurationError, PreflightRefused
from shared.plex.sqlite_check import DatabaseCheck
from shared.program.standard_streams import remark, show


class _Lines(click.ParamType[str]):
    """Texts. In the environment: one on each line, because paths may contain blanks."""

    name = "text"
    envvar_list_splitter = "\n"


@click.command()
@CONFIG
@LIBRARY
@click.option(
    "--directory",
    envvar="PLEXODUS_DIRECTORY",
    metavar="DIR",
    required=True,
    type=click.Path(file_okay=False),
    help="Folder for the files. It is made if it is not there.",
)
@click.option(
    "--output",
    envvar="PLEXODUS_OUTPUT",
    type=click.Choice([each.value for each in Output]),
    default=Output.HELM.value,
    show_default=True,
    help="How the cluster gets its objects.",
)
@click.option(
    "--image", envvar="PLEXODUS_IMAGE", metavar="NAME", help="The puller's image, without a tag."
)
@click.option("--namespace", envvar="PLEXODUS_NAMESPACE", metavar="NAME", help="Default: media.")
@click.option(
    "--release",
    envvar="PLEXODUS_RELEASE",
    metavar="NAME",
    help="Release of Plex's chart. Default: plex.",
)
@click.option(
    "--storage-class",
    envvar="PLEXODUS_STORAGE_CLASS",
    metavar="NAME",
    help="Default: the cluster's default.",
)
@click.option(
    "--media",
    envvar="PLEXODUS_MEDIA",
    metavar="OLD=VOLUME:NEW",
    multiple=True,
    type=_Lines(),
    help="What Plex has at the path OLD now is the claim VOLUME, mounted at NEW in the pod. Repeat"
    " it for several volumes; in the environment: one on each line.",
)
@click.option(
    "--plex-charts",
    envvar="PLEXODUS_PLEX_CHARTS",
    metavar="URL",
    help="Where Plex publishes its charts. Only for flux and argocd.",
)
@click.option(
    "--plexodus-source",
    envvar="PLEXODUS_PLEXODUS_SOURCE",
    metavar="URL",
    help="Git repository with charts/plexodus. Only for flux and argocd.",
)
@DATABASE_CHECK
@click.option(
    "--check",
    envvar="PLEXODUS_CHECK",
    is_flag=True,
    help="Write nothing. Print what has changed since.",
)
def plan(
    *,
    config: str | None,
    library: str | None,
    directory: str,
    check: bool,
    media: tuple[str, ...],
    database_check: str,
    **given: str | None,
) -> None:
    """Write the cluster side of the move for this library: values or manifests, and a README.

    It runs the checks of preflight. Nothing secret is written. --check takes the options that the
    folder was made with, and exits 12 if the library has changed.

    \b
    Examples:
      plexodus-agent plan --directory plan --media /mnt/nas=nas:/mnt/nas
      plexodus-agent plan --directory plan --output kustomize --storage-class local-path
      plexodus-agent plan --directory plan --output flux --plex-charts https://charts.example.org \\
          --plexodus-source https://git.example.org/plexodus/plexodus
      plexodus-agent plan --directory plan --check
    """
    # jinja2 takes 5 MiB, which the service does not need.
    from agent.plan.folder import render, write

    settings = load_settings(config, {"library": library})
    before = read_record(directory)
    if not check:
        said = {name: value for name, value in given.items() if value is not None}
        volumes = [parse_media(text) for text in media]
        options = PlanOptions(Output(said.pop("output")), media=volumes, **said).checked()
    elif before is not None:
        options = before.options
    else:
        raise ConfigurationError(
            "there is no plan to compare with",
            path=directory,
            hint="Name the folder that 'plexodus-agent plan --directory' wrote.",
        )
    source = open_library(find_library(settings))
    found = read_library(source, settings, DatabaseCheck(database_check))
    facts = facts_of(found, before)
    if not check:
        write(directory, render(found, options, facts), options, facts, before)
        remark(f"The plan is written. {os.path.join(directory, 'README.md')} says what to do.")
    elif before is not None and (changes := differences(before.facts, facts)):
        show("\n".join(changes))
        raise PreflightRefused(
            "the library has changed since the plan was written",
            path=directory,
            hint="Write a plan into another folder, and apply what differs.",
        )
