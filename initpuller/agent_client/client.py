"""Requests to the agent, except those for frames: the only module of the puller with aiohttp."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self, TypeVar

import aiohttp
import msgspec

from initpuller.agent_client import error_responses
from initpuller.agent_client.connection import (
    CONNECT_SECONDS,
    base_url,
    request_headers,
    tls_context,
)
from initpuller.agent_client.pace import Pace
from initpuller.cancellation import in_thread
from shared import errors
from shared.async_file import opened
from shared.digest import is_hex
from shared.durable import replace_durably
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.checks import Check
    from shared.plex.sqlite_check import DatabaseCheck
    from shared.wire.pairing import Pairing
    from shared.wire.protocol import LibraryReport, ServerReport, Snapshot, SnapshotRequest

T = TypeVar("T")

_MAX_MANIFEST = 8 * 1024**3
_MAX_REPORT = 4 * 1024**2
_PROBE_SECONDS = 1.0
_TOLD_SECONDS = 5.0
_SOON_SECONDS = 120.0
"""Seconds for requests that the agent answers from memory or with one small write."""
_WORK_SECONDS = 86400.0
"""Seconds for requests that walk, hash or check the library: databases of 100 GB take hours."""


class AgentClient:
    """Requests to a paired agent.

    Each of them raises AgentUnreachable, AuthenticationError or ProtocolViolation, with the
    library's error as its cause. Methods name their other errors.

    Args:
        pairing: the agent's address and the secrets.
        idle: seconds without a byte after which a request is given up.
    """

    def __init__(self, pairing: Pairing, idle: float) -> None:
        self.pairing = pairing
        self.idle = idle
        self._base = base_url(pairing)
        self._tls = tls_context(pairing)
        fingerprint = pairing.fingerprint
        pin = True if fingerprint is None else aiohttp.Fingerprint(bytes.fromhex(fingerprint))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=pin),
            headers=request_headers(pairing) | {protocol.PREFER: protocol.PROCESSING},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=idle),
            auto_decompress=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close all connections."""
        await self._session.close()

    async def library(self, depth: DatabaseCheck) -> LibraryReport:
        """Return the agent's preflight report on the whole library."""
        return await self.ask("GET", _checking(protocol.LIBRARY, depth), protocol.LibraryReport)

    async def server(self, depth: DatabaseCheck) -> ServerReport:
        """Return the agent's preflight report without the checks that walk the library."""
        route = _checking(protocol.LIBRARY_SERVER, depth)
        return await self.ask("GET", route, protocol.ServerReport)

    async def probe(self, seconds: float = _PROBE_SECONDS) -> float:
        """Measure for ``seconds``, and return, how many bytes a second the agent sends."""
        received, clock = 0, time.monotonic
        async with self._request("GET", protocol.PROBE, error_responses.OK) as response:
            await response.content.readany()  # the connection and its window are open now
            started = clock()
            async for part in response.content.iter_any():
                received += len(part)
                if clock() - started > seconds:
                    break
            return received / max(clock() - started, 1e-6)

    async def scan(self, request: SnapshotRequest) -> Snapshot:
        """Scan the library, and return the snapshot.

        Raises:
            SourceUnreadable, StorageError, SnapshotGone, ManifestTooLarge, OmittedListTooLarge.
        """
        expected, body = error_responses.CREATED, msgspec.json.encode(request)
        async with self._request("POST", protocol.SNAPSHOTS, expected, body) as response:
            answer = await self._read(response, protocol.MAX_ANSWER)
        snapshot = error_responses.decode_answer(answer, protocol.Snapshot)
        if not is_hex(snapshot.id):
            raise errors.ProtocolViolation("the agent named a snapshot that is not a digest")
        if snapshot.manifest_bytes > _MAX_MANIFEST:
            raise errors.ManifestTooLarge(
                f"the manifest has {snapshot.manifest_bytes} bytes; the limit is {_MAX_MANIFEST}"
            )
        if snapshot.omitted is None:
            raise errors.ProtocolViolation(
                "the agent does not say what the snapshot leaves out",
                hint="Install the same release on both sides.",
            )
        if snapshot.omitted.bytes > _MAX_MANIFEST:
            raise errors.OmittedListTooLarge(
                f"the agent's list of omitted entries has {snapshot.omitted.bytes} bytes; the limit"
                f" is {_MAX_MANIFEST}"
            )
        return snapshot

    async def manifest(self, snapshot: Snapshot, path: str) -> None:
        """Save the manifest, as it is on the wire, in the file ``path``.

        Raises:
            SnapshotGone, ManifestTooLarge, StorageError.
        """
        route = protocol.manifest_path(snapshot.id)
        await self._save(route, path, snapshot.manifest_bytes, errors.ManifestTooLarge)

    async def omitted(self, snapshot: Snapshot, path: str) -> None:
        """Save the list of what the snapshot leaves out, as it is sent, in the file ``path``.

        Raises:
            SnapshotGone, OmittedListTooLarge, StorageError.
        """
        most = snapshot.omitted.bytes if snapshot.omitted is not None else 0
        route = protocol.omitted_path(snapshot.id)
        await self._save(route, path, most, errors.OmittedListTooLarge)

    async def sums(self, snapshot: Snapshot, path: str, most: int) -> None:
        """Save ``SHA256SUMS``, of at most ``most`` bytes, in the file ``path``.

        Raises:
            SnapshotGone, SourceChanged, StorageError, ManifestTooLarge.
        """
        await self._save(protocol.sums_path(snapshot.id), path, most, errors.ManifestTooLarge)

    async def check(self, snapshot: str) -> None:
        """Check that the library is still as it was scanned.

        Raises:
            SourceChanged: the library has changed since.
            SnapshotGone.
        """
        async with self._request("POST", protocol.check_path(snapshot), error_responses.NO_CONTENT):
            pass

    async def ask(
        self,
        method: str,
        route: str,
        kind: type[T],
        expected: int = error_responses.OK,
        body: msgspec.Struct | None = None,
    ) -> T:
        """Send a short JSON body, or none, and return the short JSON response.

        Raises:
            PlexodusError: what the agent says; see :func:`error_responses.failure`.
        """
        sent = None if body is None else msgspec.json.encode(body)
        async with self._request(method, route, expected, sent) as response:
            return error_responses.decode_answer(await self._read(response, _MAX_REPORT), kind)

    async def tell(self, event: str, about: str) -> None:
        """Add a line to the migration log. Give up after a few seconds, and ignore failures."""
        told = protocol.PullerEvent(event, errors.printable(about)[: protocol.MAX_ABOUT])
        await self._report("POST", protocol.LOG, told)

    async def report_checks(self, checks: list[Check], *, are_all: bool = False) -> None:
        """Show the results of the checks of the volume to those who look at the agent's page.

        Give up after a few seconds, and ignore failures: an earlier agent has no such
        route.
        """
        await self._report("PUT", protocol.TARGET_CHECKS, protocol.TargetChecks(checks, are_all))

    async def _report(self, method: str, route: str, what: msgspec.Struct) -> None:
        with suppress(errors.PlexodusError, TimeoutError):
            async with (
                asyncio.timeout(_TOLD_SECONDS),
                self._request(method, route, error_responses.NO_CONTENT, msgspec.json.encode(what)),
            ):
                pass

    @asynccontextmanager
    async def _request(
        self, method: str, route: str, expected: int, body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self._base + route
        try:
            async with (
                asyncio.timeout(_head_seconds(method, route)) as limit,
                self._session.request(
                    method, url, data=body, allow_redirects=False, ssl=self._tls
                ) as response,
            ):
                limit.reschedule(None)  # _parts limits the body
                if response.status != expected:
                    raise await self._failure(response)
                yield response
        except (
            aiohttp.ServerFingerprintMismatch,
            aiohttp.ClientConnectorCertificateError,
        ) as error:
            raise error_responses.wrong_certificate(self._base) from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise error_responses.unreachable(self._base, error) from error

    async def _read(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        """Return the whole body; fail as soon as it is longer than ``most`` bytes."""
        return b"".join([part async for part in self._parts(response, most, errors.FrameTooLarge)])

    async def _save(
        self, route: str, path: str, most: int, too_large: type[errors.IntegrityError]
    ) -> None:
        """Download ``route`` into a file, which replaces ``path`` only at the end."""
        temporary = f"{path}.new"
        try:
            async with (
                self._request("GET", route, error_responses.OK) as response,
                opened(temporary, "wb") as file,
            ):
                async for part in self._parts(response, most, too_large):
                    await file.write(part)
            await in_thread(replace_durably, temporary, path)
        except OSError as error:
            raise errors.storage_error(error, path) from error
        finally:
            with suppress(OSError):  # usually renamed by now
                os.unlink(temporary)

    async def _parts(
        self, response: aiohttp.ClientResponse, most: int, too_large: type[errors.IntegrityError]
    ) -> AsyncIterator[bytes]:
        """Yield the body in pieces, as long as it is short and fast enough.

        Raises:
            IntegrityError: ``too_large``; the body is longer than ``most`` bytes.
            TimeoutError: the body arrives byte by byte.
        """
        if (response.content_length or 0) > most:
            raise too_large(
                f"the agent's response has {response.content_length} bytes; the limit is {most}"
            )
        size, pace = 0, Pace(self.idle)
        async for part in response.content.iter_any():
            size += len(part)
            if size > most:
                raise too_large(f"the agent's response has more than {most} bytes")
            pace.took(len(part))
            yield part

    async def _failure(self, response: aiohttp.ClientResponse) -> errors.PlexodusError:
        is_problem = response.content_type == protocol.PROBLEM_TYPE
        problem = await self._read(response, protocol.MAX_ANSWER) if is_problem else None
        return error_responses.failure(response.status, response.reason or "", problem)


def _head_seconds(method: str, route: str) -> float:
    """Return for how long interim responses may say that an answer is still to come."""
    is_soon = (method, route) == ("GET", protocol.CUTOVER) or route.endswith("/lease")
    return _SOON_SECONDS if is_soon or route == protocol.LOG else _WORK_SECONDS


def _checking(route: str, depth: DatabaseCheck) -> str:
    return f"{route}?{protocol.DATABASE_CHECK}={depth.value}&{protocol.IDENTIFY_CHECKS}=true"
