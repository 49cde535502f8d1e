"""The sidecar: waits for Plex's first start on the volume, checks the move, and reports the result.

It runs as long as its pod, so it stays small: commands that need large libraries run in processes
that end.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
import structlog

from initpuller.agent_client.log import Teller
from initpuller.plex.identity import Identity, ask_identity
from initpuller.plex.paths import Section
from initpuller.report.metrics import metrics
from initpuller.report.probes import Probes
from initpuller.volume.records.receipt import load_receipt
from initpuller.volume.records.target import open_layout
from initpuller.watch import slow_start
from shared import typed_json
from shared.checks import Check, Outcome, duration
from shared.durable import write_durably
from shared.errors import PlexUnreachable, printable
from shared.plex.library import server_folder
from shared.program.command_line import read_failure
from shared.program.exit_codes import ExitCode
from shared.timestamps import timestamp
from shared.wire.protocol import MAX_ABOUT, PullerEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.wire.pairing import Pairing

_log = structlog.get_logger("puller")

Phase: TypeAlias = Literal[
    "waiting", "checking", "moving libraries", "migrated", "attention", "idle"
]
_PATIENT_SECONDS = 60.0
"""Seconds between two log lines about a Plex that does not answer: it may migrate its database for
an hour."""
_GLANCE = 0.5
"""Seconds between two checks whether the sidecar has to stop."""


class Watched(msgspec.Struct):
    """The state of the watch: ``/progress`` shows it, and its last one is kept on the volume."""

    phase: Phase
    since: str
    about: str = ""
    plex_version: str = ""
    checks: list[Check] = []


@dataclass(frozen=True)
class WatchOptions:
    """The options of the sidecar."""

    target: str
    plex_url: str
    pairing: Pairing | None
    """The pairing of the agent that gets the events; None for no agent."""
    mappings: Sequence[str]
    applies: bool
    """Whether Plex's libraries get the folders that the mappings name."""
    listen: tuple[str, int]
    interval: float
    """Seconds between two requests to Plex."""
    stopping: threading.Event = field(default_factory=threading.Event)


class Watch:
    """One watch, from the pod's start to its end.

    Raises:
        ConfigurationError: there is no volume, or :meth:`run` finds the port for probes in use.
        StorageError: the volume's receipt cannot be read.
    """

    def __init__(self, options: WatchOptions) -> None:
        self._options = options
        self._layout = open_layout(options.target)
        self._receipt = load_receipt(self._layout)
        self._now = Watched("waiting", timestamp())
        self._is_up = True
        """Whether Plex has answered; True, too, if there is nothing to wait for."""
        self._maps = [f"--map={each}" for each in options.mappings]
        pairing = options.pairing
        self._teller = Teller(pairing, options.stopping) if pairing is not None else None

    def run(self) -> None:
        """Watch until the sidecar is stopped."""
        with Probes(
            self._options.listen,
            is_ready=lambda: self._is_up and self._now.phase not in {"waiting", "checking"},
            progress=lambda: msgspec.json.encode(self._now),
            metrics=lambda: metrics(self._now.phase),
        ) as probes:
            _log.info("watching", plex=self._options.plex_url, probes=probes.port)
            self._watch()
            _log.info(self._now.phase, about=self._now.about)
            self._options.stopping.wait()

    def _watch(self) -> None:
        if self._receipt is None or self._receipt.plex is None:
            self._enter("idle", "no Plex was moved onto this volume: there is nothing to compare")
            return
        with suppress(OSError, msgspec.DecodeError), open(self._layout.migrated, "rb") as file:
            self._now = typed_json.decode(file.read(), Watched)
            return
        while (identity := self._wait()) is not None:
            try:
                self._check_move(identity)
            except PlexUnreachable as error:  # Plex restarts, as it does after a migration
                self._enter("waiting", error.what)
            else:
                return

    def _check_move(self, identity: Identity) -> None:
        self._now.plex_version = identity.version
        self._enter("checking", f"Plex {identity.version} runs")
        _log.info("Plex runs", version=identity.version)
        self._tell("started", f"Plex {identity.version} runs on {self._options.target}")
        if self._check() and self._apply():
            self._tell_paths()
            about = f"{self._options.target} is served by Plex {identity.version}"
            migrated = msgspec.structs.replace(
                self._now, phase="migrated", since=timestamp(), about=about
            )
            self._keep(migrated)
            self._now = migrated
            self._tell("migrated", about)

    def _wait(self) -> Identity | None:
        """Wait for Plex and return its identity; return None if the sidecar is stopped before."""
        self._is_up = False
        said, heard = 0.0, ""
        started = time.monotonic()
        server = self._server()
        until = started + slow_start.patience(server)
        while True:
            answer = ask_identity(self._options.plex_url)
            if isinstance(answer, Identity):
                self._is_up = True
                return answer
            now = time.monotonic()
            if answer != heard or now - said >= _PATIENT_SECONDS:
                _log.info("Plex is not up yet", heard=answer, seconds=round(now - started))
                said, heard = now, answer
            if self._now.phase == "waiting":
                self._now.about = answer
                if now > until:
                    self._needs_attention(_slow(now - started, answer, server))
            if self._options.stopping.wait(self._options.interval):
                return None

    def _server(self) -> str:
        """Return the path of Plex's own folder on the volume."""
        assert self._receipt is not None  # noqa: S101 - nothing is watched without one
        library = self._layout.library(self._receipt.library.name)
        return server_folder(library) or library

    def _check(self) -> bool:
        code, out, said = self._ours("check", "--json")
        try:
            self._now.checks = typed_json.decode(out, list[Check])
        except msgspec.DecodeError:
            return self._needs_attention(said)
        failed = [each for each in self._now.checks if each.outcome is Outcome.FAILURE]
        for each in self._now.checks:
            level = _log.info if each.outcome is Outcome.PASS else _log.warning
            level(each.found, check=each.name, hint=each.advice)
        if code or failed:
            return self._needs_attention("; ".join(each.found for each in failed) or said)
        return True

    def _apply(self) -> bool:
        if not self._options.applies:
            return True
        self._enter("moving libraries", "Plex's libraries get their new folders")
        code, _, said = self._ours("paths", "--apply", "--json", *self._maps)
        return code == 0 or self._needs_attention(said)

    def _tell_paths(self) -> None:
        """Report where the libraries look for their media now."""
        _, out, said = self._ours("paths", "--json", *self._maps)
        try:
            sections = typed_json.decode(out, list[Section])
        except msgspec.DecodeError:
            _log.warning("the folders of the library sections are unknown", reason=said)
            return
        is_new = self._options.applies
        told = [
            f"{each.name}: {', '.join(f.new if is_new else f.old for f in each.folders)}"
            for each in sections
        ]
        self._tell("paths", f"Libraries look in: {'; '.join(told) or 'nothing, there are none'}")

    def _ours(self, *command: str) -> tuple[int, bytes, str]:
        """Run a puller command in a process; return its exit code, output, and reason of failure.

        Raise PlexUnreachable if Plex did not answer the command.
        """
        options = "--target", self._options.target, "--plex-url", self._options.plex_url
        with subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-P", "-m", "initpuller", *command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            out, err = self._communicate(process)
        code, failure = process.returncode, read_failure(err)
        reason = f"the command '{command[0]}' ended with exit code {code}"
        if failure is not None:
            reason = failure.reason
        elif code and not self._options.stopping.is_set():
            text = err.decode(errors="replace")
            _log.error("command failed", command=command[0], exit_code=code, log=text)
        if code == ExitCode.UNREACHABLE:
            raise PlexUnreachable(reason)
        return code, out, reason

    def _communicate(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        while True:
            try:
                return process.communicate(timeout=_GLANCE)
            except subprocess.TimeoutExpired:
                if self._options.stopping.is_set():
                    process.terminate()

    def _needs_attention(self, about: str) -> bool:
        if self._options.stopping.is_set():
            return False  # the command was stopped by us
        self._enter("attention", about)
        _log.error("the migration needs attention", reason=about)
        self._tell("attention", about)
        return False

    def _enter(self, phase: Phase, about: str) -> None:
        self._now.phase, self._now.since, self._now.about = phase, timestamp(), about

    def _keep(self, migrated: Watched) -> None:
        """Note on the volume that the move is done, so that the next start of the pod knows it."""
        try:
            write_durably(self._layout.migrated, msgspec.json.encode(migrated) + b"\n")
        except OSError as error:
            _log.warning("cannot be noted", path=self._layout.migrated, reason=error.strerror)

    def _tell(self, event: str, about: str) -> None:
        if self._teller is not None:
            self._teller.tell(PullerEvent(event, printable(about)[:MAX_ABOUT]))


def _slow(seconds: float, answer: str, server: str) -> str:
    error = slow_start.last_error(server)
    return (
        f"Plex has not started in {duration(seconds)}: {answer}."
        f" {f'The last error in its log is: {error}. ' if error else ''}"
        "It may still be at work on its database. If not, stop it, and run 'plexodus-agent undo' on"
        " the VM. To find out what is wrong while Plex runs there, pull with --rehearse"
    )
