"""The agent as a service: its start, its signals, its reports to systemd, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import structlog
from msgspec.structs import replace

from agent.app import listen, make_app
from agent.host.sandbox import WITHOUT_SANDBOX, is_without_sandbox
from agent.host.systemd import Notifier, leave_state_path
from agent.plex.services import find_library
from agent.server.stopping import STOPPING
from agent.server.tls import server_tls
from agent.source.library import CurrentLibrary
from shared import __version__
from shared.durable import write_durably
from shared.errors import ConfigurationError, PlexodusError, storage_errors
from shared.native import state as accelerator
from shared.program.exit_codes import ExitCode
from shared.program.mallopt import keep_freed_memory
from shared.wire.pairing import address

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.app import Parts
    from agent.cutover.control import CutoverControl
    from agent.settings import Settings

_log = structlog.get_logger("agent")
_TEND = 1.0
"""Seconds between two checks of the lease."""
_GUARD, _GUARD_CONTAINER = 30, 1
"""After so many checks comes one of the fence. A container may be created again at any time, and
then nothing but the agent keeps it stopped."""
_SWITCH = 0.0005
"""Seconds after which a thread must yield Python's lock (5 ms by default). Responses consist of
many short steps, and a walk of the whole tree never waits."""
_LEAVE = 45.0
"""Seconds for an undo when the agent ends: a stop that has begun has to end first."""
_NOT_UNDONE = "the cutover is not undone: the next start does it"
_GLANCE = 0.2
_STEPS = ThreadPoolExecutor(2, thread_name_prefix="lease")
"""Threads that check the lease, and undo a cutover when the agent ends. Nothing else may keep them
busy, because Plex would stay stopped."""
_FIXED = (
    *("unit", "listen", "state"),
    *("container", "engine_socket"),
    *("stop_command", "start_command", "stop_seconds", "lease_seconds"),
)
"""Settings that need a restart."""


async def serve(load: Callable[[], Settings]) -> NoReturn:
    """Serve the library over HTTPS until SIGTERM or SIGINT; SIGHUP calls ``load`` again.

    Does not return, because threads may scan a library for minutes. They end with the process: an
    agent that is killed leaves nothing half written.

    Raises:
        ConfigurationError: If a setting, state folder, address or certificate cannot be used.
        PreflightRefused: If the library cannot be read, the port cannot be opened now, or the clock
            is wrong. Each may come later than the agent when the VM boots.
        StorageError: If the state folder cannot be written, or a file cannot be read now.
    """
    keep_freed_memory()
    sys.setswitchinterval(_SWITCH)
    notifier, settings = Notifier(), load()
    tls = server_tls(settings)
    _try_state(settings.state)
    find = partial(find_library, replace(settings, library=""))
    library = CurrentLibrary(settings.library, find, settings.state)
    with storage_errors(settings.state):
        parts = make_app(settings, library)
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    runner, _ = await listen(parts, settings, tls)
    for where in runner.addresses:
        at, path = address(*where[:2]), library.last.about.path
        _log.info("serving", address=at, library=path, version=__version__, accelerator=accelerator)
    guard = _GUARD_CONTAINER if settings.container else _GUARD
    serving = "Serving"
    if is_without_sandbox():
        _log.error("no sandbox", reason=WITHOUT_SANDBOX)
        serving = f"Serving WITHOUT A SANDBOX ({WITHOUT_SANDBOX})"
    await asyncio.to_thread(_started, parts.cutover, settings.state)
    notifier.ready()
    tasks = [
        asyncio.create_task(notifier.keep_told(lambda: f"{serving}; {parts.activity}")),
        asyncio.create_task(_tend(parts.cutover, guard)),
        asyncio.create_task(_reload(reload, load, settings, parts, notifier)),
    ]
    await stop.wait()
    _log.info("stopping")
    notifier.stopping()
    parts.app[STOPPING].set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(runner.cleanup(), _leave(parts.cutover))
    _log.info("stopped")
    sys.stderr.flush()
    os._exit(ExitCode.OK)


async def _tend(cutover: CutoverControl, guard: int) -> NoReturn:
    """Let leases expire, and check the fence each ``guard`` times. Log a repeated error once.

    No error ends this: Plex would stay stopped while the watchdog is fed.
    """
    reported, checks, loop = "", 0, asyncio.get_running_loop()
    while True:
        try:
            await loop.run_in_executor(_STEPS, cutover.tend)
            if checks % guard == 0:
                await loop.run_in_executor(_STEPS, cutover.guard)
            reported = ""
        except Exception as error:  # noqa: BLE001 - see above
            if repr(error) != reported:
                _report("the cutover is stuck, trying again", error)
            reported = repr(error)
        checks += 1
        await asyncio.sleep(_TEND)


async def _leave(cutover: CutoverControl) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LEAVE):
            is_over = False
            while not is_over:
                is_over = await loop.run_in_executor(_STEPS, cutover.leave)
                await asyncio.sleep(_GLANCE)
    except TimeoutError:
        reason = f"Plex was not seen running within {_LEAVE:.0f} s"
        _log.error(_NOT_UNDONE, reason=reason)
    except Exception as error:  # noqa: BLE001 - the agent has to end, and ExecStopPost follows
        _report(_NOT_UNDONE, error)


async def _reload(
    asked: asyncio.Event,
    load: Callable[[], Settings],
    old: Settings,
    parts: Parts,
    notifier: Notifier,
) -> NoReturn:
    """Whenever ``asked`` is set, apply changed settings, or none if the new ones are invalid."""
    while True:
        await asked.wait()
        asked.clear()
        notifier.reloading()
        try:
            new = load()
            # The state folder stays the one that is in use.
            tls = server_tls(replace(new, state=old.state))
        except PlexodusError as error:
            _log.error("settings not applied", reason=str(error))
        else:
            parts.apply(new, tls)
            fixed = [name for name in _FIXED if getattr(new, name) != getattr(old, name)]
            _log.info("settings applied", need_restart=fixed)
        notifier.ready()


def _started(cutover: CutoverControl, state: str) -> None:
    """Tell ExecStopPost where the state folder is: by then, the settings may be unreadable."""
    try:
        leave_state_path(state)
        cutover.started()
    except Exception as error:  # noqa: BLE001 - the agent has to start, or Plex may stay stopped
        _report("the record of the cutover cannot be written", error)


def _report(event: str, error: Exception) -> None:
    """Log a failure of the cutover; one that is a bug, with its traceback."""
    is_known = isinstance(error, PlexodusError | OSError)
    _log.error(event, reason=str(error) or repr(error), exc_info=None if is_known else error)


def _try_state(state: str) -> None:
    """Write a file into the state folder, as every snapshot will."""
    path = os.path.join(state, "written")
    with storage_errors(state):
        try:
            write_durably(path, bytes(4096))
            os.unlink(path)
        except PermissionError as error:
            raise ConfigurationError(
                f"the state folder cannot be written ({error.strerror})", path=state
            ) from error
