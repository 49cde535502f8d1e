"""The agent's HTTP interface: the only file of the puller that knows an HTTP library.

Every failure leaves here as one of ours (:mod:`shared.errors`), with the library's as its cause.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self, TypeVar

import aiofiles
import aiohttp
import msgspec

from shared import __version__, errors, protocol
from shared.codec import Encoding, decode, max_encoded
from shared.digest import is_hex, sha256
from shared.durable import settle
from shared.pairing import Pairing, address
from shared.sha256sums import MAX_LINE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from shared.digest import Buffer
    from shared.protocol import Snapshot

T = TypeVar("T")

IDLE_SECONDS = 30.0
"""Without a single byte for so long, the agent counts as stalled; it says 102 every 5 s."""
_CONNECT_SECONDS = 10.0
_MAX_MANIFEST = 8 * 1024**3
_OK, _CREATED, _NO_CONTENT = 200, 201, 204
_UNAUTHORIZED, _TOO_MANY, _SERVER_ERROR = 401, 429, 500


class AgentClient:
    """A paired agent.

    Args:
        pairing: where it is, and the secrets.
        connections: how many requests at the same time.
        idle: seconds without a byte after which a request is given up.
    """

    def __init__(self, pairing: Pairing, connections: int, idle: float = IDLE_SECONDS) -> None:
        self._base = f"https://{address(pairing.host, pairing.port)}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=aiohttp.Fingerprint(bytes.fromhex(pairing.fingerprint)), limit=connections
            ),
            headers={
                "Authorization": f"Bearer {pairing.token}",
                "User-Agent": f"plexodus-puller/{__version__}",
                protocol.PREFER: protocol.PROCESSING,
            },
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_SECONDS, sock_read=idle
            ),
            auto_decompress=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self._session.close()

    async def scan(self, exclude: list[str]) -> Snapshot:
        """Have the agent scan the library.

        Raises:
            AgentUnreachable, AuthenticationError, SourceUnreadable, StorageError,
            ProtocolViolation, ManifestTooLarge.
        """
        body = msgspec.json.encode(protocol.SnapshotRequest(kind="cold", exclude=exclude))
        async with self._request("POST", protocol.SNAPSHOTS, _CREATED, body) as response:
            snapshot = _decode(await _read(response, protocol.MAX_ANSWER), protocol.Snapshot)
        if not is_hex(snapshot.id):
            raise errors.ProtocolViolation("a snapshot whose name is no digest")
        if snapshot.manifest_bytes > _MAX_MANIFEST:
            raise errors.ManifestTooLarge(f"a manifest of {snapshot.manifest_bytes} bytes")
        return snapshot

    async def manifest(self, snapshot: Snapshot, path: str) -> None:
        """Bring the manifest, as it is on the wire, into the file ``path``.

        Raises:
            AgentUnreachable, AuthenticationError, SnapshotGone, ManifestTooLarge, StorageError.
        """
        route = protocol.manifest_path(snapshot.id)
        async with self._request("GET", route, _OK) as response:
            await _save(response, path, snapshot.manifest_bytes)

    async def frame(self, snapshot: str, number: int, size: int) -> tuple[Buffer, str]:
        """The verified tar bytes of a frame that has ``size`` of them, and their hex digest.

        Raises:
            AgentUnreachable, AuthenticationError, SnapshotGone, SourceChanged, FrameTooLarge,
            FrameSizeWrong, FrameDamaged, ProtocolViolation.
        """
        encoding = Encoding.ZSTD
        route = protocol.frame_path(snapshot, number, encoding.value)
        async with self._request("GET", route, _OK) as response:
            tag = response.headers.get("ETag", "").strip('"')
            if not is_hex(tag):
                raise errors.ProtocolViolation("a frame without its digest", path=route)
            encoded = await _read(response, max_encoded(size))
        return await asyncio.to_thread(_verified, encoded, encoding, size, tag)

    async def sums(self, snapshot: Snapshot, path: str) -> None:
        """Bring ``SHA256SUMS`` into the file ``path``.

        Raises:
            AgentUnreachable, AuthenticationError, SnapshotGone, SourceChanged, StorageError,
            ManifestTooLarge.
        """
        most = snapshot.files * MAX_LINE
        route = protocol.sums_path(snapshot.id)
        async with self._request("GET", route, _OK) as response:
            await _save(response, path, most)

    async def check(self, snapshot: str) -> None:
        """Have the agent look whether the library is still as it was scanned.

        Raises:
            SourceChanged: it is not.
            AgentUnreachable, AuthenticationError, SnapshotGone.
        """
        async with self._request("POST", protocol.check_path(snapshot), _NO_CONTENT):
            pass

    @asynccontextmanager
    async def _request(
        self, method: str, route: str, expected: int, body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self._base + route
        try:
            async with self._session.request(
                method, url, data=body, allow_redirects=False
            ) as response:
                if response.status != expected:
                    raise await _failure(response)
                yield response
        except aiohttp.ServerFingerprintMismatch as error:
            raise errors.AuthenticationError(
                "the agent's certificate is not the paired one",
                path=self._base,
                hint="Is this the right machine? If its certificate was made anew, pair again.",
            ) from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise errors.AgentUnreachable(
                f"the agent did not answer ({_reason(error)})",
                path=self._base,
                hint="Does 'plexodus-agent serve' run there, and is the port open?",
            ) from error


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _verified(encoded: bytes, encoding: Encoding, size: int, tag: str) -> tuple[Buffer, str]:
    tar = decode(encoded, encoding, size)
    if sha256(tar).hex() != tag:
        raise errors.FrameDamaged("a frame's bytes do not have the digest announced for them")
    return tar, tag


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The whole body, refused as soon as it is over ``most`` bytes."""
    if (response.content_length or 0) > most:
        raise errors.FrameTooLarge(f"an answer of {response.content_length} bytes, not {most}")
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > most:
            raise errors.FrameTooLarge(f"an answer of more than {most} bytes")
        parts.append(part)
    return b"".join(parts)


async def _save(response: aiohttp.ClientResponse, path: str, most: int) -> None:
    """The whole body into a file; what was there is replaced only at the end."""
    size = 0
    temporary = f"{path}.new"
    try:
        async with aiofiles.open(temporary, "wb") as file:
            async for part in response.content.iter_any():
                size += len(part)
                if size > most:
                    raise errors.ManifestTooLarge(f"more than the {most} bytes announced")
                await file.write(part)
        await asyncio.to_thread(settle, temporary, path)
    except aiohttp.ClientError:
        raise
    except OSError as error:
        if isinstance(error, TimeoutError | ConnectionError):
            raise
        raise errors.storage_error(error, path) from error
    finally:
        with suppress(OSError):  # settled, most often
            os.unlink(temporary)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise errors.ProtocolViolation(f"an answer that cannot be read ({error})") from error


async def _failure(response: aiohttp.ClientResponse) -> errors.PlexodusError:
    """Our error for an answer that is not the expected one."""
    if response.status == _UNAUTHORIZED:
        return errors.AuthenticationError(
            "the agent does not accept the token",
            hint="Was the agent paired anew? Give the puller the new pairing string.",
        )
    problem = protocol.Problem(protocol.ABOUT_BLANK, response.reason or "", response.status)
    if response.content_type == protocol.PROBLEM_TYPE:
        problem = _decode(await _read(response, protocol.MAX_ANSWER), protocol.Problem)
    path = problem.paths[0] if problem.paths else None
    if problem.type == protocol.SOURCE_UNREADABLE:
        return errors.SourceUnreadable([errors.printable(each) for each in problem.paths])
    if problem.type == protocol.SOURCE_CHANGED:
        return errors.SourceChanged(
            problem.title, path=path, hint="Is Plex really stopped? Stop it and run again."
        )
    if problem.type == protocol.NO_SUCH_SNAPSHOT:
        return errors.SnapshotGone(problem.title)
    if problem.type == protocol.STORAGE:
        return errors.StorageError(f"on the agent's side: {problem.title}", path=path)
    if response.status >= _SERVER_ERROR or response.status == _TOO_MANY:
        return errors.AgentUnreachable(f"the agent answered {response.status}: {problem.title}")
    return errors.ProtocolViolation(f"the agent answered {response.status}: {problem.title}")
