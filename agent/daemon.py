"""The agent as a service: it starts, tells systemd, hears signals, and ends in time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import msgspec
import structlog

from agent.app import listen, make_app
from agent.host.runtime_folder import leave_state_path
from agent.host.systemd_notify import Notifier
from agent.plex.folder import find_library
from agent.server.stopping import STOPPING
from agent.server.tls import server_tls
from agent.source.library import CurrentLibrary
from shared import __version__
from shared.durable import write_durably
from shared.errors import ConfigurationError, PlexodusError, storage_error
from shared.program.exit_codes import ExitCode
from shared.program.mallopt import keep_freed_memory
from shared.wire.pairing import address

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.app import Parts
    from agent.cutover.control import CutoverControl
    from agent.server.connections import Connections
    from agent.settings import Settings

_log = structlog.get_logger("agent")
_TEND = 1.0
"""Seconds between two looks at a lease."""
_GUARD = 30
"""Of these looks one is at the fence, too."""
_SWITCH = 0.0005
"""Seconds that a thread with Python's lock may keep another one waiting (5 ms by default): answers
are made of many short steps, and whoever looks at the whole tree never waits."""
_LEAVE = 45.0
"""Seconds that an undo gets when the agent ends: a stop that has begun has to end first."""
_GLANCE = 0.2
_FIXED = (
    *("unit", "listen", "state"),
    *("stop_command", "start_command", "stop_seconds", "lease_seconds"),
)
"""Settings that need a restart."""


async def serve(load: Callable[[], Settings]) -> NoReturn:
    """Serve the library over HTTPS until SIGTERM or SIGINT; SIGHUP reads the settings again.

    Does not return: threads that scan a library may be in the middle of it for minutes. They are
    left there, since an agent that is killed leaves nothing half written.

    Args:
        load: reads the settings.

    Raises:
        ConfigurationError: a setting, folder, address, certificate or clock that cannot be used.
        StorageError: the state folder takes nothing.
    """
    keep_freed_memory()
    sys.setswitchinterval(_SWITCH)
    notifier, settings = Notifier(), load()
    tls = server_tls(settings)
    _try_state(settings.state)
    find = partial(find_library, settings.unit)
    library = CurrentLibrary(settings.library, find, settings.state)
    try:
        parts = make_app(settings, library)
    except OSError as error:
        raise storage_error(error, settings.state) from error
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    runner, connections = await listen(parts, settings, tls)
    for where in runner.addresses:
        _log.info(
            "serving",
            address=address(*where[:2]),
            library=library.last.about.path,
            version=__version__,
        )
    await asyncio.to_thread(_started, parts.cutover, settings.state)
    notifier.ready()
    tasks = [
        asyncio.create_task(notifier.keep_told(lambda: f"Serving; {parts.activity}")),
        asyncio.create_task(_tend(parts.cutover)),
        asyncio.create_task(_Reload(load, settings, parts, connections, notifier).run(reload)),
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


async def _tend(cutover: CutoverControl) -> NoReturn:
    """Have leases expire and the fence hold; what fails is tried again, and told once."""
    told, looks = "", 0
    while True:
        step = cutover.tend if looks % _GUARD else cutover.guard
        looks += 1
        try:
            await asyncio.to_thread(step)
            told = ""
        except (PlexodusError, OSError) as error:
            if str(error) != told:
                _log.error("the cutover is stuck, trying again", reason=str(error))
            told = str(error)
        await asyncio.sleep(_TEND)


async def _leave(cutover: CutoverControl) -> None:
    try:
        async with asyncio.timeout(_LEAVE):
            is_over = False
            while not is_over:
                is_over = await asyncio.to_thread(cutover.leave)
                await asyncio.sleep(_GLANCE)
    except (PlexodusError, OSError) as error:  # TimeoutError is one
        reason = str(error) or f"Plex was not seen running within {_LEAVE:.0f} s"
        _log.error("the cutover is not undone: the next start does it", reason=reason)


@dataclass(frozen=True)
class _Reload:
    """Applies changed settings to the running service."""

    load: Callable[[], Settings]
    started_with: Settings
    parts: Parts
    connections: Connections
    notifier: Notifier

    async def run(self, asked: asyncio.Event) -> NoReturn:
        """Read the settings again whenever ``asked`` is set."""
        while True:
            await asked.wait()
            asked.clear()
            self.notifier.reloading()
            try:
                new = self.load()
                self._apply(new)
            except PlexodusError as error:
                _log.error("settings not applied", reason=str(error))
            else:
                old = self.started_with
                fixed = [name for name in _FIXED if getattr(new, name) != getattr(old, name)]
                _log.info("settings applied", need_restart=fixed)
            self.notifier.ready()

    def _apply(self, new: Settings) -> None:
        """Use the settings that need no restart.

        Raises:
            ConfigurationError: the certificate cannot be used; nothing has changed then.
        """
        # The state folder stays the one that is in use.
        state = self.started_with.state
        self.connections.tls = server_tls(msgspec.structs.replace(new, state=state))
        self.connections.limits = new.limits
        self.parts.outflow.rate = new.bytes_per_second
        self.parts.library.configured = new.library


def _started(cutover: CutoverControl, state: str) -> None:
    """Leave for ExecStopPost where the state folder is: by then, the settings may be unreadable."""
    try:
        cutover.started()
        leave_state_path(state)
    except (PlexodusError, OSError) as error:
        _log.error("the record of the cutover cannot be written", reason=str(error))


def _try_state(state: str) -> None:
    """Write a file into the state folder, as every snapshot will.

    Raises:
        StorageError: the disk is full, or does not take it.
        ConfigurationError: it is not ours to write into.
    """
    path = os.path.join(state, "written")
    try:
        write_durably(path, bytes(4096))
        os.unlink(path)
    except PermissionError as error:
        raise ConfigurationError(
            f"the state folder cannot be written ({error.strerror})", path=state
        ) from error
    except OSError as error:
        raise storage_error(error, state) from error
