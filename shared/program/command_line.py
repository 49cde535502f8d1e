"""The frame of both command lines: environment, logging, errors and exit codes."""

from __future__ import annotations

import difflib
import gc
import os
import re
import resource
from typing import TYPE_CHECKING, NoReturn

import click
import msgspec
import structlog

from shared import typed_json
from shared.errors import ConfigurationError, PlexodusError, Temporary
from shared.native import SWITCH
from shared.program import logs, standard_streams
from shared.program.exit_codes import ExitCode, exit_code_for

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_FAILED = "failed"
# Kubernetes sets these variables in every pod if a Service is called "plexodus" or "plexodus-…".
_SERVICE = re.compile(
    r"PLEXODUS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


class Failure(msgspec.Struct, frozen=True):
    """The fields of the log line with which a program of ours fails."""

    reason: str
    """The error's message, for people."""
    exit_code: int
    kind: str
    """The error's class, see :mod:`shared.errors`."""


class _Event(msgspec.Struct):
    event: str


def run(
    command: click.Command,
    program: str,
    extra_variables: Collection[str] = (),
    last_word: Callable[[str], None] = lambda _: None,
) -> NoReturn:
    """Run ``command`` and exit with one of the documented exit codes.

    Args:
        command: the click command or group.
        program: its name, as the user knows it.
        extra_variables: environment variables that do not belong to an option.
        last_word: called with one line that says why the program fails.
    """
    standard_streams.secure()
    logs.configure()
    _allow_many_descriptors()
    gc.freeze()  # imported modules are never freed, so the collector can skip them
    standard_streams.end(_code(command, program, extra_variables, last_word))


def _code(
    command: click.Command,
    program: str,
    extra_variables: Collection[str],
    last_word: Callable[[str], None],
) -> int:
    """Run ``command``, report its failure, and return the exit code."""
    log = structlog.get_logger(program)
    try:
        check_environment(os.environ, known_variables(command) | {SWITCH, *extra_variables})
        result = command.main(prog_name=program, standalone_mode=False)
    except PlexodusError as error:
        code = exit_code_for(error)
        # The message helps the user; a traceback would not.
        log.error(  # noqa: TRY400
            _FAILED, reason=str(error), exit_code=int(code), kind=type(error).__name__
        )
        lifetime = "Temporary" if isinstance(error, Temporary) else "Permanent"
        kind = f"{lifetime} {type(error).__name__}"
        last_word(logs.without_secrets(f"{kind}, exit code {int(code)}: {error}"))
        return code
    except click.ClickException as error:
        error.show()
        last_word(f"Permanent ConfigurationError, exit code 2: {error.format_message()}")
        return ExitCode.CONFIGURATION
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except SystemExit as ended:  # click's: for a shell's completion, or if nobody reads any more
        return ended.code if isinstance(ended.code, int) else ExitCode.INTERNAL
    except Exception as error:
        last_word(logs.without_secrets(f"Bug, exit code 1: {type(error).__name__}: {error}"))
        log.exception("unexpected failure: this is a bug, please report it")
        return ExitCode.INTERNAL
    return result if isinstance(result, int) else ExitCode.OK


def read_failure(log: bytes) -> Failure | None:
    """Return the failure in the ``log`` of a program that has ended: its stderr, lines of JSON."""
    for line in reversed(log.splitlines()):
        try:
            if typed_json.decode(line, _Event).event == _FAILED:
                return typed_json.decode(line, Failure)
        except msgspec.DecodeError:
            continue  # something else was printed
    return None


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


def known_variables(command: click.Command) -> set[str]:
    """Return every environment variable that an option of ``command`` or a subcommand reads."""
    found = {option.envvar for option in command.params if isinstance(option.envvar, str)}
    if isinstance(command, click.Group):
        for below in command.commands.values():
            found |= known_variables(below)
    return found


def _allow_many_descriptors() -> None:
    """Raise the limit of open files, because a walk holds one descriptor per level of a tree."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _is_service_link(name: str, value: str) -> bool:
    """Return whether the variable is a service link: its value is an address, port or protocol."""
    return _SERVICE.fullmatch(name) is not None and (
        re.fullmatch(r"((tcp|udp|sctp)://)?[0-9a-fA-F.:\[\]]+|tcp|udp|sctp", value) is not None
    )
