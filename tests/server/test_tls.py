"""TLS and pairing: protocols, trust, and wrong clocks or files."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import yaml
from msgspec.structs import replace
from rig.hostile.authority import Authority
from rig.oracle import rsync_differences
from rig.programs import Puller, clean_environment, program

from agent.server.credentials import certificate_path, make_pairing
from agent.server.tls import check_clock, server_tls
from agent.settings import Settings
from shared.errors import ConfigurationError, PreflightRefused, StorageError
from shared.wire.pairing import parse_pairing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Make a CA that only configured clients trust."""
    return Authority(tmp_path / "ca")


def handshake(agent: Agent, *options: str) -> str:
    """Return the output of openssl's client for a handshake with ``agent``."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{agent.port}", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, input="Q")
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "is_spoken"),
    [
        (["-tls1_3"], True),
        (["-tls1_2"], True),
        (["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], False),
        (["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"], False),
        (["-tls1_2", "-cipher", "ECDHE+AES128+SHA256:!AESGCM"], False),  # CBC
        (["-tls1_2", "-cipher", "kRSA"], False),
        (["-tls1_2", "-cipher", "DHE"], False),
    ],
)
def test_only_modern_tls_is_spoken(agent: Agent, options: list[str], *, is_spoken: bool) -> None:
    """Only TLS 1.2 with forward secrecy and authenticated encryption, and 1.3, succeed."""
    said = handshake(agent, *options)
    assert ("Cipher is (NONE)" not in said) == is_spoken, said


def test_no_renegotiation_and_no_compression(agent: Agent) -> None:
    """Renegotiation and compression are refused."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{agent.port}", "-tls1_2"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, input="R\nQ\n")
    assert "no renegotiation" in done.stderr
    assert "Compression: NONE" in done.stdout


def test_certificate_of_a_ca_is_verified(
    tmp_path: Path, library: Path, new_agent: Callable[[Path], Agent], authority: Authority
) -> None:
    """A CA certificate is verified by CA and name, and refused without the CA."""
    certificate, key = authority.issue("localhost")
    settings = tmp_path / "agent.toml"
    settings.write_text(f'certificate = "{certificate}"\nkey = "{key}"\n')
    agent = new_agent(library)
    address = f"localhost:{agent.port}"
    paired = program("plexodus-agent", "pair", "--config", settings, "--state", agent.state,
                     "--address", address)  # fmt: skip
    agent.pairing = paired.stdout.strip()
    assert parse_pairing(agent.pairing).fingerprint is None
    agent.start("--config", settings)
    (tmp_path / "config").mkdir()
    puller = Puller(tmp_path / "config", tmp_path / "puller.log", agent.pairing)

    stranger = puller.pull()
    assert stranger.code == 10
    assert "certificate" in stranger.reason()
    by_address = Puller(puller.target, puller.log, agent.pairing.replace("localhost", "127.0.0.1"))
    trusting = {"SSL_CERT_FILE": str(authority.certificate)}
    assert by_address.pull(environment=trusting).code == 10
    assert not (puller.target / "Library").exists()

    finished = puller.pull(environment=trusting)
    assert finished.code == 0, finished.text
    assert rsync_differences(library, puller.target / "Library") == []


def test_client_without_a_certificate_gets_no_response(
    tmp_path: Path, library: Path, new_agent: Callable[[Path], Agent], authority: Authority
) -> None:
    """With ``client_ca``, a token without a certificate gets no response."""
    (tmp_path / "agent.toml").write_text(f'client_ca = "{authority.certificate}"\n')
    agent = new_agent(library)
    agent.pair()
    agent.start("--config", tmp_path / "agent.toml")
    (tmp_path / "config").mkdir()
    puller = Puller(tmp_path / "config", tmp_path / "puller.log", agent.pairing)
    ours, foreign = authority.issue("puller"), Authority(tmp_path / "other").issue("puller")
    assert "< HTTP/1.1 200" in answer_with(agent, ours)
    for files in (None, foreign):
        assert "< HTTP/1.1" not in answer_with(agent, files)
    assert '"event": "handshake failed"' in agent.log.read_text()

    finished = puller.pull("--client-certificate", ours[0], "--client-key", ours[1])

    assert finished.code == 0, finished.text
    assert rsync_differences(library, puller.target / "Library") == []


def test_client_certificate_is_accepted_if_the_store_has_the_ca_between(
    tmp_path: Path, library: Path, new_agent: Callable[[Path], Agent], authority: Authority
) -> None:
    """A pinned agent that trusts only the root gets the intermediate CA from the puller's store."""
    between = Authority(tmp_path / "between", above=authority)
    store = tmp_path / "store.pem"
    store.write_bytes(authority.certificate.read_bytes() + between.certificate.read_bytes())
    (tmp_path / "agent.toml").write_text(f'client_ca = "{authority.certificate}"\n')
    agent = new_agent(library)
    agent.pair()
    agent.start("--config", tmp_path / "agent.toml")
    (tmp_path / "config").mkdir()
    puller = Puller(tmp_path / "config", tmp_path / "puller.log", agent.pairing)
    certificate, key = between.issue("puller")

    finished = puller.pull(
        "--client-certificate", certificate, "--client-key", key,
        environment={"SSL_CERT_FILE": str(store)},
    )  # fmt: skip

    assert finished.code == 0, finished.text
    assert rsync_differences(library, puller.target / "Library") == []


def answer_with(agent: Agent, files: tuple[Path, Path] | None) -> str:
    """Return curl's result with this certificate."""
    command = ["curl", "-skv", f"https://127.0.0.1:{agent.port}/healthz"]
    if files is not None:
        command += ["--cert", str(files[0]), "--key", str(files[1])]
    return subprocess.run(command, check=False, capture_output=True, text=True).stderr


def test_wrong_clock_is_refused_with_both_dates(tmp_path: Path) -> None:
    """A clock at 1970 or ten years ahead is refused with both dates, until it is set."""
    state = str(tmp_path)
    make_pairing(state, "127.0.0.1", 1)
    now = datetime.now(UTC)
    check_clock(certificate_path(state), now)
    with pytest.raises(PreflightRefused, match=r"1970-01-01.*clock"):
        check_clock(certificate_path(state), datetime.fromtimestamp(0, UTC))
    with pytest.raises(PreflightRefused, match=r"expired at .* it is 20\d\d-\d\d-\d\d now"):
        check_clock(certificate_path(state), now + timedelta(days=3660))


@pytest.mark.parametrize("damage", ["no key", "another key", "encrypted key", "garbage"])
def test_unusable_certificate_file_is_reported(
    tmp_path: Path, authority: Authority, damage: str
) -> None:
    """An unusable certificate file is reported by name, without a password prompt."""
    make_pairing(str(tmp_path / "state"), "127.0.0.1", 1)
    certificate, key = authority.issue("localhost")
    if damage == "no key":
        key.unlink()
    elif damage == "another key":
        key = authority.issue("other")[1]
    elif damage == "encrypted key":
        command: list[str | Path] = [
            "openssl",
            "rsa",
            "-aes256",
            "-passout",
            "pass:x",
            "-in",
            key,
            "-out",
            key,
        ]
        subprocess.run(command, check=True, capture_output=True)
    else:
        certificate.write_bytes(b"garbage")
    settings = Settings(state=str(tmp_path / "state"), certificate=str(certificate), key=str(key))
    name = r"localhost\.key" if damage == "no key" else r"localhost\.crt"
    with pytest.raises(ConfigurationError, match=name):
        server_tls(settings)


@pytest.mark.parametrize("setting", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("is_read_first", [True, False])
def test_failing_disk_is_no_mistake_in_the_settings(
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    *,
    is_read_first: bool,
) -> None:
    """A file that has an EIO at each read is reported as such, also if OpenSSL reads it."""
    make_pairing(str(tmp_path / "state"), "127.0.0.1", 1)
    certificate, key = authority.issue("localhost")
    settings = Settings(state=str(tmp_path / "state"), certificate=str(certificate), key=str(key))
    if not is_read_first:
        monkeypatch.setattr("agent.server.tls._read", lambda *_: certificate.read_bytes())
    with pytest.raises(StorageError, match="Input/output error"):
        server_tls(replace(settings, **{setting: "/proc/self/mem"}))


def test_pairing_for_kubernetes(tmp_path: Path) -> None:
    """The Secret holds a working string, and no process list can show it."""
    options: list[str | Path] = [
        "pair",
        "--state",
        tmp_path / "state",
        "--address",
        "vm:8443",
        "--name",
        "my-secret",
    ]
    text = program("plexodus-agent", *options, "--output", "secret-yaml").stdout
    secret = yaml.safe_load(text)
    assert secret["kind"] == "Secret"
    assert secret["metadata"]["name"] == "my-secret"
    assert parse_pairing(secret["stringData"]["PLEXODUS_PAIRING"]).host == "vm"

    command = program("plexodus-agent", *options, "--output", "kubectl").stdout
    (tmp_path / "kubectl").write_text('#!/bin/sh\necho "$@" > "$0.arguments"\ncat > "$0.input"\n')
    (tmp_path / "kubectl").chmod(0o755)
    environment = clean_environment() | {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", "-c", command], check=True, env=environment)
    given = (tmp_path / "kubectl.input").read_text().strip()
    assert parse_pairing(given.removeprefix("PLEXODUS_PAIRING=")).port == 8443
    arguments = (tmp_path / "kubectl.arguments").read_text()
    assert "my-secret" in arguments
    assert "plexodus://" not in arguments


def test_secret_names_with_shell_syntax_are_refused(tmp_path: Path) -> None:
    """A name with shell syntax is refused."""
    options: list[str | Path] = [
        "pair",
        "--state",
        tmp_path / "s",
        "--address",
        "vm:1",
        "--name",
        "x; reboot",
    ]
    assert program("plexodus-agent", *options, check=False).returncode == 2


def test_pairing_names_this_machines_address(tmp_path: Path) -> None:
    """Without ``--address``, an address of this machine with the listening port is used."""
    (tmp_path / "agent.toml").write_text('listen = "0.0.0.0:9999"\n')
    said = program(
        "plexodus-agent", "pair", "--state", tmp_path / "state", "--config", tmp_path / "agent.toml"
    )
    pairing = parse_pairing(said.stdout)
    assert pairing.port == 9999
    own = subprocess.run(["hostname", "-I"], check=True, capture_output=True, text=True).stdout
    assert pairing.host in own.split()
