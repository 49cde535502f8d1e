"""Settings: valid values, refusals with the file's name, and precedence."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from agent.settings import Limits, Settings, load_settings, parse_rate
from shared.errors import ConfigurationError, StorageError

SHIPPED = Path(__file__).parent.parent.parent / "agent" / "systemd" / "agent.toml"


def written(tmp_path: Path, text: str) -> str:
    """Write a settings file with this text."""
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return str(path)


def test_shipped_file_shows_every_default() -> None:
    """The shipped file, uncommented, equals the defaults."""
    text = re.sub(r"^#(\w+ = )", r"\1", SHIPPED.read_text(), flags=re.MULTILINE)
    said = tomllib.loads(text)
    assert msgspec.convert(said, Settings) == Settings()
    assert set(said) == {field.name for field in msgspec.structs.fields(Settings)}
    assert set(said["limits"]) == {field.name for field in msgspec.structs.fields(Limits)}


def test_command_line_overrides_the_file(tmp_path: Path) -> None:
    """The command line overrides the file, and the file the defaults."""
    path = written(tmp_path, 'library = "/a"\nstate = "/b"\n[limits]\nconnections = 7\n')
    settings = load_settings(path, {"library": "/c", "state": None})
    assert settings == Settings(library="/c", state="/b", limits=Limits(connections=7))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('folder = "/a"', "folder"),
        ("[limits]\nconn = 1", "conn"),
        ("[limits]\nconnections = 0", "limits.connections"),
        ("[limits]\nidle_seconds = -1", "limits.idle_seconds"),
        ("library = 5", "library"),
        ('listen = "8443"', "8443"),
        ('rate = "fast"', "fast"),
        ('certificate = "/a"', "key"),
        ("library = ", "not valid TOML"),
        ('library = "\udcff"', "TOML"),
    ],
)
def test_invalid_settings_are_refused(tmp_path: Path, text: str, told: str) -> None:
    """An invalid setting is refused with the invalid word."""
    path = tmp_path / "agent.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        load_settings(str(path), {})


def test_missing_named_file_is_refused(tmp_path: Path) -> None:
    """A named file must exist, and the default file may be missing."""
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_settings(str(tmp_path / "none.toml"), {})
    assert isinstance(load_settings(None, {}), Settings)


@pytest.mark.parametrize(
    ("leads_to", "kind", "reason"),
    [
        ("/proc/self/mem", StorageError, "Input/output error"),  # to read its first byte
        ("/", ConfigurationError, "Is a directory"),
        ("agent.toml", ConfigurationError, "Too many levels of symbolic links"),
        ("/etc/passwd/x", ConfigurationError, "Not a directory"),
        ("x" * 300, ConfigurationError, "File name too long"),
    ],
)
def test_file_that_cannot_be_read(
    tmp_path: Path, leads_to: str, kind: type[Exception], reason: str
) -> None:
    """A failing disk is no mistake in the settings: the agent is started again after that."""
    path = tmp_path / "agent.toml"
    path.symlink_to(leads_to)
    with pytest.raises(kind, match=rf"{reason}.*{path}"):
        load_settings(str(path), {})


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50MiB/s", 50 * 1024**2),
        ("50 MB/s", 50e6),
        ("1.5GiB/s", 1.5 * 1024**3),
        ("400Mbit/s", 50e6),
        ("2000B/s", 2000),
        ("8kB/s", 8000),
    ],
)
def test_rates_in_common_spellings_are_accepted(text: str, rate: float) -> None:
    """Rates are in bytes or bits, with powers of 1000 or 1024."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "50", "50MiB", "-1MB/s", "0MB/s", "1B/s", "50 miles/s"])
def test_invalid_rates_are_refused(text: str) -> None:
    """An invalid rate is refused, and so is zero."""
    with pytest.raises(ConfigurationError):
        parse_rate(text)
