"""What networks do to a pull: cut, stall, flip bits, refuse. In process, with short patience."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences
from rig.wirefaults import Faults, FaultyNetwork

from initpuller.migrate import PullOptions, pull
from initpuller.volume.decision import OnExisting
from initpuller.volume.ownership import choose_ownership
from initpuller.wire.backoff import Retrier
from shared.errors import AgentUnreachable, AuthenticationError
from shared.exitcodes import ExitCode
from shared.pairing import parse_pairing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.programs import Agent, Puller

MEGABYTE = 10**6
HURRIED = Retrier((0.01,) * 8)


@pytest.fixture
def network(agent: Agent) -> Iterator[FaultyNetwork]:
    """A network in front of the agent, sound until told otherwise."""
    with FaultyNetwork(agent.port) as network:
        yield network


@pytest.fixture
def options(agent: Agent, network: FaultyNetwork, tmp_path: Path) -> PullOptions:
    """A pull through that network."""
    target = tmp_path / "config"
    target.mkdir()
    return PullOptions(
        pairing=replace(parse_pairing(agent.pairing), port=network.port),
        target=str(target),
        ownership=choose_ownership(None),
        exclude=[],
        jobs=3,
        on_existing=OnExisting.FAIL,
        retrier=HURRIED,
        idle=10,
    )


@pytest.mark.parametrize("place", [0, 100, 1_500, 5_000, 500_000, 3 * MEGABYTE])
async def test_connections_cut(
    place: int, network: FaultyNetwork, options: PullOptions, library: Path, tmp_path: Path
) -> None:
    """Cut in the handshake, in headers, in frames: tried again, and identical in the end."""
    network.faults = Faults(cut_after=place, times=5)

    await pull(options)

    assert network.happened > 0
    assert rsync_differences(library, tmp_path / "config" / "Library") == []


@pytest.mark.parametrize("place", [40, 3_000, 200_000, 2 * MEGABYTE])
async def test_bit_flipped_on_the_way(
    place: int, network: FaultyNetwork, options: PullOptions, library: Path, tmp_path: Path
) -> None:
    """TLS notices, the connection is given up, and the bytes come again."""
    network.faults = Faults(flip_at=place, times=3)

    await pull(options)

    assert network.happened > 0
    assert rsync_differences(library, tmp_path / "config" / "Library") == []


async def test_connection_stalls(
    network: FaultyNetwork, options: PullOptions, library: Path, tmp_path: Path
) -> None:
    """Without a byte for the idle time, a request is given up and made again."""
    network.faults = Faults(stall_after=MEGABYTE, times=2)

    await pull(replace(options, idle=1.0))
    network.cut()
    await asyncio.sleep(0.2)  # asyncio closes the stalled connections, which nobody answered on

    assert network.happened > 0
    assert rsync_differences(library, tmp_path / "config" / "Library") == []


async def test_slow_network_is_not_a_stalled_one(
    agent: Agent, network: FaultyNetwork, options: PullOptions
) -> None:
    """A transfer may take many times the idle time, as long as bytes come."""
    network.faults = Faults(bytes_per_second=12 * MEGABYTE)
    started = time.monotonic()

    await pull(replace(options, idle=1.0))

    assert time.monotonic() - started > 3
    asked = agent.frames_asked()
    assert len(asked) == len(set(asked))


async def test_network_down_for_good(
    network: FaultyNetwork, options: PullOptions, tmp_path: Path
) -> None:
    """When tries are used up the run ends as unreachable, with no library; the next one goes on."""
    network.faults = Faults(cut_after=3 * MEGABYTE)
    with pytest.raises(AgentUnreachable):
        await pull(replace(options, retrier=Retrier((0.01,))))
    assert not (tmp_path / "config" / "Library").exists()

    network.faults = Faults()
    await pull(options)

    assert (tmp_path / "config" / "Library").is_dir()


async def test_certificate_of_somebody_else(
    options: PullOptions,
    agent: Agent,
    new_agent: Callable[[Path], Agent],
    library: Path,
    tmp_path: Path,
) -> None:
    """Another certificate at the agent's address is refused before the token is sent."""
    impostor = new_agent(library)
    impostor.pair()
    impostor.start()

    with pytest.raises(AuthenticationError, match="certificate"):
        await pull(replace(options, pairing=replace(options.pairing, port=impostor.port)))
    assert impostor.requests() == []
    assert not (tmp_path / "config" / "Library").exists()


def test_new_token_works_and_the_old_one_does_not(agent: Agent, puller: Puller) -> None:
    """Pairing anew needs no restart; with the old string the puller exits with 10."""
    old, new = puller.pairing, agent.pair()

    refused = puller.pull()
    puller.pairing = new
    accepted = puller.pull()

    assert refused.code == ExitCode.AUTHENTICATION
    assert "token" in refused.reason()
    assert accepted.code == ExitCode.OK, accepted.text
    secrets = [parse_pairing(old).token, parse_pairing(new).token]
    logs = refused.text + accepted.text + agent.log.read_text()
    assert not any(secret in logs for secret in secrets)


def test_agent_is_not_there(agent: Agent, puller: Puller) -> None:
    """The puller tries for a while and exits with 11, saying where it looked."""
    agent.kill()

    done = puller.pull()

    assert done.code == ExitCode.UNREACHABLE
    assert str(agent.port) in done.reason()
    assert not (puller.target / "Library").exists()
