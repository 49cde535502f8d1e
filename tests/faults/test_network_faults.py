"""Faults of each connection, in handshake, head and body, refusals, and changed tokens."""

from __future__ import annotations

import asyncio
import base64
import random
import socket
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.hostile.fault_proxy import Cut, FaultProxy, Flip, Stall
from rig.oracle import rsync_differences
from rig.programs import Puller

from agent.server.credentials import token_hash_path
from initpuller.agent_client.retry import Retrier
from initpuller.pull.options import Mode, PullOptions
from initpuller.pull.recipe import pull
from initpuller.report.progress import PullProgress
from initpuller.volume.decision import OnExisting
from initpuller.volume.ownership import choose_ownership
from shared.errors import AgentUnreachable, AuthenticationError
from shared.program.exit_codes import ExitCode, exit_code_for
from shared.wire.pairing import new_token, parse_pairing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from rig.hostile.fault_proxy import Fault
    from rig.programs import Agent

FRAME = 4 * 1024 * 1024


@pytest.fixture
def proxy(agent: Agent) -> Iterator[FaultProxy]:
    """Return a proxy to the agent, without faults until a test adds one."""
    with FaultProxy(agent.port) as proxy:
        yield proxy


@pytest.fixture
async def options(agent: Agent, proxy: FaultProxy, tmp_path: Path) -> AsyncIterator[PullOptions]:
    """Return the options of a pull through that proxy, with short pauses."""
    target = tmp_path / "config"
    target.mkdir()
    yield PullOptions(
        pairing=replace(parse_pairing(agent.pairing), port=proxy.port),
        target=str(target),
        mode=Mode.MOVE_STOPPED,
        ownership=choose_ownership(None),
        exclude=[],
        jobs=3,
        on_existing=OnExisting.FAIL,
        retrier=Retrier((0.01,) * 12),
        idle=20,
    )
    proxy.cut_all()
    await asyncio.sleep(0.2)  # asyncio drops connections whose TLS nobody ended, given its turn


async def test_every_kind_of_damage_in_one_pull(
    proxy: FaultProxy, options: PullOptions, library: Path, tmp_path: Path
) -> None:
    """A pull survives cuts and flipped bits in handshake, head and body."""
    places = random.Random(4)  # noqa: S311 - the same places each time
    handshake: list[Fault] = [Cut(0), Flip(3), Cut(150), Flip(700), Cut(1_000)]
    bodies: list[Fault] = []
    for _ in range(6):
        bodies += [Cut(places.randrange(FRAME)), Flip(places.randrange(FRAME))]
    proxy.plan(*handshake)
    proxy.plan_for_frames(*bodies)

    await pull(options, PullProgress())

    assert set(handshake) <= set(proxy.happened)
    assert len([fault for fault in proxy.happened if fault in bodies]) >= 6
    assert rsync_differences(library, tmp_path / "config" / "Library") == []


async def test_connections_stalled_in_handshake_head_and_body(
    agent: Agent, proxy: FaultProxy, options: PullOptions, library: Path, tmp_path: Path
) -> None:
    """Stalled connections are closed, and only the frames under way are sent again."""
    in_head, *in_bodies = stalls = [Stall(1_700), Stall(FRAME), Stall(FRAME // 2), Stall(0)]
    proxy.plan(in_head)
    proxy.plan_for_frames(*in_bodies)

    await pull(replace(options, idle=3.0), PullProgress())

    assert set(proxy.happened) >= {*stalls}
    asked = agent.frames_asked()
    assert 0 < len(asked) - len(set(asked)) <= len(proxy.happened)
    assert rsync_differences(library, tmp_path / "config" / "Library") == []


async def test_one_slow_but_steady_frame_outlasts_the_idle_time(
    new_agent: Callable[[Path], Agent], options: PullOptions, tmp_path: Path
) -> None:
    """A slow response is accepted as long as bytes arrive."""
    small = tmp_path / "other" / "Library"
    small.mkdir(parents=True)
    (small / "one").write_bytes(random.Random(6).randbytes(FRAME))  # noqa: S311 - no secret
    agent = new_agent(small)
    agent.pair()
    agent.start()
    with FaultProxy(agent.port, rate=FRAME / 3) as proxy:
        pairing = replace(parse_pairing(agent.pairing), port=proxy.port)
        started = time.monotonic()

        await pull(replace(options, pairing=pairing, idle=0.6), PullProgress())

        assert time.monotonic() - started > 3
    assert sorted(agent.frames_asked()) == [0, 1]
    assert rsync_differences(small, tmp_path / "config" / "Library") == []


async def _five_frames_asked(agent: Agent, running: asyncio.Task[None]) -> None:
    """Wait until the agent was asked for five frames; the pull must not end before."""
    async with asyncio.timeout(60):
        while len(agent.frames_asked()) < 5:
            assert not running.done()
            await asyncio.sleep(0.01)


async def test_network_gone_for_a_while(
    agent: Agent, proxy: FaultProxy, options: PullOptions, library: Path, tmp_path: Path
) -> None:
    """The same run resumes when connections are accepted again."""
    proxy.rate = 30e6
    running = asyncio.create_task(
        pull(replace(options, retrier=Retrier((0.1,) * 100)), PullProgress())
    )
    await _five_frames_asked(agent, running)
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
    await asyncio.sleep(0.5)  # the length of the outage
    assert not running.done()
    passed = proxy.bytes_passed
    proxy.accept_again()
    await running

    assert proxy.bytes_passed > passed
    assert rsync_differences(library, tmp_path / "config" / "Library") == []


async def test_no_handshake_ever_succeeds(
    proxy: FaultProxy, options: PullOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no handshake succeeds, the pull exits 11 soon, without a library."""
    monkeypatch.setattr("initpuller.agent_client.client.CONNECT_SECONDS", 0.5)
    impatient = replace(options, idle=0.5, retrier=Retrier((0.01,)))
    for damage in (Cut(0), Cut(400), Stall(0), Stall(400), None):
        proxy.always(damage)
        if damage is None:
            proxy.refuse()
        started = time.monotonic()

        with pytest.raises(AgentUnreachable) as caught:
            await pull(impatient, PullProgress())

        assert time.monotonic() - started < 10
        # The preflight goes beside the scan, each twice, and aiohttp may connect again by itself.
        assert damage is None or 2 <= proxy.happened.count(damage) <= 8
        assert exit_code_for(caught.value) is ExitCode.UNREACHABLE
        assert str(proxy.port) in str(caught.value)
        assert {path.name for path in (tmp_path / "config").iterdir()} == {".plexodus"}
        assert not (tmp_path / "config" / ".plexodus" / "staging").exists()


async def test_another_machine_at_the_same_address_midway(
    agent: Agent,
    new_agent: Callable[[Path], Agent],
    proxy: FaultProxy,
    options: PullOptions,
    library: Path,
    tmp_path: Path,
) -> None:
    """An unpaired certificate ends the run at once, and never sees the token."""
    impostor = new_agent(library)
    impostor.pair()
    impostor.start()
    proxy.rate = 30e6
    running = asyncio.create_task(pull(options, PullProgress()))
    await _five_frames_asked(agent, running)
    proxy.agent_port = impostor.port
    proxy.cut_all()

    with pytest.raises(AuthenticationError, match="certificate") as caught:
        await running

    assert exit_code_for(caught.value) is ExitCode.AUTHENTICATION
    assert impostor.requests() == []
    assert not (tmp_path / "config" / "Library").exists()


async def test_token_replaced_during_a_pull_ends_it(
    agent: Agent, proxy: FaultProxy, options: PullOptions, tmp_path: Path
) -> None:
    """The old token fails at once in both spellings, and the new one works without a restart."""
    proxy.rate = 30e6
    running = asyncio.create_task(pull(options, PullProgress()))
    await _five_frames_asked(agent, running)
    old = parse_pairing(agent.pairing)
    proxy.rate = 4e6  # the pull must not end before the new token is there
    new = parse_pairing(await asyncio.to_thread(agent.pair))
    proxy.rate = None

    with pytest.raises(AuthenticationError, match="token") as caught:
        await running

    assert exit_code_for(caught.value) is ExitCode.AUTHENTICATION
    assert not (tmp_path / "config" / "Library").exists()
    tokens = (old.token, new.token, new_token(), "")
    answers = [_statuses(agent, token, f"127.0.1.{each}") for each, token in enumerate(tokens, 1)]
    assert answers == [[401, 401], [404, 404], [401, 401], [401, 401]]

    proxy.source = "127.0.2.1"  # this address has no wrong tokens yet, so nothing is delayed
    new = replace(new, port=proxy.port)
    never_paired = str(replace(new, token=new_token()))
    puller = Puller(tmp_path / "config", tmp_path / "puller.log", never_paired)
    refused = puller.pull()
    puller.pairing = str(new)
    accepted = puller.pull()

    assert refused.code == ExitCode.AUTHENTICATION
    assert accepted.code == ExitCode.OK, accepted.text


def test_token_that_the_agent_cannot_compare(agent: Agent, puller: Puller) -> None:
    """A file that the agent cannot read makes no token wrong: pairing again would not help."""
    file = Path(token_hash_path(str(agent.state)))
    file.rename(file.with_name("lost"))
    file.mkdir()  # to read it fails with EISDIR
    refused = puller.pull()
    assert refused.code == ExitCode.STORAGE, refused.text
    assert "Is a directory" in refused.reason()
    file.rmdir()
    assert puller.pull().code == ExitCode.AUTHENTICATION
    file.with_name("lost").rename(file)
    assert puller.pull().code == ExitCode.OK


def _statuses(agent: Agent, token: str, source: str) -> list[int]:
    """Return the status codes for an unknown snapshot, with Bearer and with Basic.

    Each token comes from an address of its own, because the agent delays an address that sends many
    wrong ones.
    """
    basic = base64.b64encode(f"plexodus:{token}".encode()).decode()
    statuses = []
    for value in (f"Bearer {token}", f"Basic {basic}"):
        with closing(agent.connect(source)) as http:
            http.request("GET", f"/v1/snapshots/{'0' * 64}", headers={"Authorization": value})
            statuses.append(http.getresponse().status)
    return statuses
