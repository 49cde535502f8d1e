"""The pairing string is read back as written, and never part of a message."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConfigurationError
from shared.wire.pairing import Pairing, new_token, parse_address, parse_pairing

TOKEN = "t0kEn_-" + "S" * 36
PRINT = "0123456789abcdef" * 4
GOOD = f"plexodus://{TOKEN}@192.0.2.10:8443?fp={PRINT}"

_hosts = st.one_of(
    st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,5})?", fullmatch=True),
    st.ip_addresses().map(str),
)


@given(_hosts, st.integers(1, 65535), st.binary(min_size=32, max_size=32))
def test_pairing_is_read_back(host: str, port: int, digest: bytes) -> None:
    """Names, both kinds of addresses and surrounding white space are read."""
    pairing = Pairing(host, port, digest.hex(), new_token())
    assert parse_pairing(f"  {pairing}\n") == pairing
    assert pairing.token not in repr(pairing)


BROKEN = {
    "scheme": GOOD.replace("plexodus", "https"),
    "no_scheme": GOOD.removeprefix("plexodus://"),
    "no_host": GOOD.replace("192.0.2.10", ""),
    "no_port": GOOD.replace(":8443", ""),
    "port_zero": GOOD.replace("8443", "0"),
    "port_too_high": GOOD.replace("8443", "65536"),
    "port_a_word": GOOD.replace("8443", "https"),
    "port_negative": GOOD.replace("8443", "-1"),
    "bracket": GOOD.replace("192.0.2.10", "[::1"),
    "no_address_in_brackets": GOOD.replace("192.0.2.10", "[host]"),
    "token_cut": GOOD.replace(TOKEN, TOKEN[:-1]),
    "token_longer": GOOD.replace(TOKEN, TOKEN + "S"),
    "token_with_other_letters": GOOD.replace(TOKEN, TOKEN[:-1] + "%"),
    "token_as_password": GOOD.replace("//", "//user:"),
    "no_fingerprint": GOOD.partition("?")[0],
    "fingerprint_cut": GOOD[:-1],
    "fingerprint_mistyped": GOOD[:-1] + "g",
    "something_else": GOOD.replace("fp=", "sha=") + "&fp=1",
    "unicode_tricks": GOOD.replace("192.0.2.10", "a\u2100b"),
    "twice": GOOD + GOOD,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_broken_pairing_keeps_its_secret(text: str) -> None:
    """A broken pairing is in no message and in no traceback."""
    with pytest.raises(ConfigurationError) as caught:
        parse_pairing(text)
    told = "".join(traceback.format_exception(caught.value))
    assert TOKEN[:-1] not in told
    assert "plexodus-agent pair" in str(caught.value)


@given(st.text(max_size=120))
def test_any_text_for_a_pairing(text: str) -> None:
    """Any text is a pairing or an error of ours that does not repeat it."""
    with pytest.raises(ConfigurationError):
        parse_pairing(f"plexodus://{TOKEN}@{text}")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("192.0.2.10:8443", "192.0.2.10", 8443), ("[::1]:80", "::1", 80), ("vm.lan:1", "vm.lan", 1)],
)
def test_address_is_read(text: str, host: str, port: int) -> None:
    """Host and port are read as people write them."""
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:word", "host:70000", "u@host:1", "host:1/x", "[::1"]
)
def test_address_that_is_none(text: str) -> None:
    """An invalid address is refused by name."""
    with pytest.raises(ConfigurationError):
        parse_address(text)
