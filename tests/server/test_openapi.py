"""``/openapi.json`` describes the code and every response of the agent."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
from contextlib import closing
from functools import reduce
from http.client import HTTPSConnection
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import schemathesis
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from rig.plex.commands import SERVER, only_plex
from rig.programs import read_log

from agent.app import make_app
from agent.server.credentials import make_pairing
from agent.settings import Settings
from agent.source.library import CurrentLibrary
from shared import __version__
from shared.frames.codec import Encoding
from shared.plex.library import DATABASE_FOLDER
from shared.plex.sqlite_check import DatabaseCheck
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from rig.programs import Agent

FILE = Path(__file__).parent.parent.parent / "agent" / "routes" / "openapi.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_bytes())
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
PAGE = {
    *(protocol.PAGE, protocol.PAGE_STYLE, protocol.PAGE_SCRIPT),
    *(protocol.SIGN_IN, protocol.SIGN_OUT, protocol.PAGE_UNDO),
}
NOT_PROVOKED = {"408", "409", "413", "500", "503", "507"}
"""These take a library that changes, a slow or large body, or a broken disk: see other tests."""


def described() -> dict[tuple[str, str], dict[str, Any]]:
    """Return each operation of the document by method and path."""
    return {
        (method.upper(), path): operation
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def referred(part: dict[str, Any]) -> dict[str, Any]:
    """Return ``part``, or the component that it refers to."""
    if "$ref" not in part:
        return part
    component: dict[str, Any] = reduce(getitem, part["$ref"].split("/")[1:], DOCUMENT)
    return component


def without_words(part: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return ``part`` of a document without descriptions, which need not be the docstrings."""
    if isinstance(part, dict):
        return {key: without_words(value) for key, value in part.items() if key != "description"}
    return [without_words(value) for value in part] if isinstance(part, list) else part


def test_document_is_valid() -> None:
    """The document passes the schema of OpenAPI 3.1, and operation names are unique."""
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    names = [operation["operationId"] for operation in described().values()]
    assert len(names) == len(set(names))
    assert DOCUMENT["info"]["version"] == __version__


def test_schemas_are_those_of_the_bodies() -> None:
    """The document has the schema of each body that the code reads or writes, and no other."""
    bodies = [
        body
        for body in vars(protocol).values()
        if isinstance(body, type) and issubclass(body, msgspec.Struct)
    ]
    template = "#/components/schemas/{name}"
    _, schemas = msgspec.json.schema_components(bodies, ref_template=template)
    assert without_words(DOCUMENT["components"]["schemas"]) == without_words(schemas)


def test_choices_are_those_of_the_code() -> None:
    """Parameters with a list of values have those that the code knows."""
    parameters = DOCUMENT["components"]["parameters"]
    choices = {
        name: parameter["schema"]["enum"]
        for name, parameter in parameters.items()
        if "enum" in parameter["schema"]
    }
    assert choices == {
        "suffix": [each.value for each in Encoding],
        protocol.DATABASE_CHECK: [each.value for each in DatabaseCheck],
        protocol.IDENTIFY_CHECKS: ["true", "false"],
    }
    archive = DOCUMENT["paths"][protocol.archive_path("{snapshot}", "{suffix}")]
    assert list(archive["get"]["responses"]["200"]["content"]) == [
        each.media_type for each in Encoding
    ]
    metrics = DOCUMENT["paths"][protocol.METRICS]["get"]["responses"]["200"]
    assert list(metrics["content"]) == [CONTENT_TYPE_LATEST]


def test_head_is_described_as_get_without_the_body() -> None:
    """Each GET has a HEAD with the same responses, but without content and ranges."""
    for path, item in DOCUMENT["paths"].items():
        if "get" not in item:
            assert "head" not in item, path
            continue
        expected = {
            status: {k: v for k, v in referred(answer).items() if k != "content"}
            for status, answer in item["get"]["responses"].items()
            if status not in {"206", "416"}
        }
        head = item["head"]
        found = {status: referred(answer) for status, answer in head["responses"].items()}
        assert found == expected, path
        names = [each["$ref"].rpartition("/")[2] for each in item["get"].get("parameters", [])]
        kept = [each["$ref"].rpartition("/")[2] for each in head.get("parameters", [])]
        assert kept == [name for name in names if name not in {"Range", "If-Range"}], path


def test_every_route_is_described(tmp_path: Path) -> None:
    """Every route but those of the page for a browser is described, and no other."""
    (tmp_path / "Library").mkdir()
    make_pairing(str(tmp_path / "state"), "127.0.0.1", 1)
    settings = Settings(state=str(tmp_path / "state"))
    library = CurrentLibrary(str(tmp_path / "Library"), str, settings.state)
    app = make_app(settings, library).app
    routes = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None
    }
    assert set(described()) == {each for each in routes if each[1] not in PAGE}


@pytest.fixture
def small(tmp_path: Path, new_agent: Callable[[Path], Agent]) -> Agent:
    """Start an agent for a library of a few frames."""
    library = tmp_path / "Library"
    (library / SERVER / DATABASE_FOLDER).mkdir(parents=True)  # where a stop looks for open ones
    (library / "large").write_bytes(bytes(range(256)) * 20_000)
    (library / "small").write_bytes(b"content")
    agent = new_agent(library)
    agent.pair()
    agent.settings = tmp_path / "agent.toml"
    agent.settings.write_text('stop_command = ["true"]\nstart_command = ["true"]\n')
    agent.start()
    return agent


def ask(
    agent: Agent, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, str, bytes]:
    """Return status, entity-tag and whatever follows the headers on the connection."""
    trust = ssl.create_default_context(cafile=agent.state / "agent.crt")
    trust.check_hostname = False
    http = HTTPSConnection("127.0.0.1", agent.port, context=trust, timeout=60)
    known = {"Authorization": f"Bearer {agent.token}", "Connection": "close"}
    http.request(method, path, headers=known | (headers or {}))
    assert http.sock is not None
    stream = http.sock.makefile("rb")
    head, _, body = stream.read().partition(b"\r\n\r\n")
    stream.close()
    http.close()
    tag = re.search(rb'(?i)\r\netag: ("[^"]*")', head)
    return int(head.split()[1]), tag[1].decode() if tag else "", body


def path_of(template: str, snapshot: str) -> str:
    """Return a path that exists."""
    return template.format(snapshot=snapshot, number=0, suffix="tar.gz")


def test_document_is_served_as_it_is(small: Agent) -> None:
    """The agent sends the file, byte for byte."""
    assert ask(small, "GET", protocol.OPENAPI)[2] == FILE.read_bytes()


def test_head_is_get_without_the_body(small: Agent) -> None:
    """Nothing follows the headers of a HEAD response."""
    snapshot = small.scan().id
    for method, template in described():
        if method == "HEAD" and template != protocol.EVENTS:  # a GET of these has no end
            path = path_of(template, snapshot)
            status, tag, body = ask(small, "HEAD", path)
            assert body == b"", path
            assert (status, tag) == ask(small, "GET", path)[:2], path


def test_manifest_in_ranges(small: Agent) -> None:
    """The ranges of a manifest joined are the whole, and failures are problems."""
    path = protocol.manifest_path(small.scan().id)
    _, tag, whole = ask(small, "GET", path)
    parts = [
        ask(small, "GET", path, {"Range": asked, "If-Range": tag})
        for asked in ("bytes=0-9", "bytes=10-")
    ]
    assert [status for status, _, _ in parts] == [206, 206]
    assert b"".join(body for _, _, body in parts) == whole
    assert ask(small, "GET", path, {"Range": "bytes=0-9", "If-Range": '"x"'})[2] == whole
    assert ask(small, "GET", path, {"If-None-Match": tag}) == (304, tag, b"")
    for headers, expected in (({"Range": "bytes=9999-"}, 416), ({"If-Match": '"x"'}, 412)):
        status, _, body = ask(small, "GET", path, headers)
        assert status == json.loads(body)["status"] == expected


CONFIGURATION = """
seed = 1
continue-on-failure = true
tls-verify = false  # the certificate is made out to another name

[auth.openapi.bearer]
bearer = "{token}"

[generation]
max-examples = 30
database = "none"

[checks.positive_data_acceptance]
# 412 and 416 are what a condition and a range that do not hold are to be answered with
expected-statuses = ["2xx", "3xx", "404", "412", "416"]

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "404", "405"]

[dictionaries]
snapshots = {{ values = ["{snapshot}"] }}
numbers = {{ values = [0, 1] }}
ranges = {{ values = ["bytes=0-99", "bytes=9999999999-", "bytes=-1"] }}
archive = {{ values = ["{archive}"] }}
manifest = {{ values = ["{manifest}"] }}

[parameters]
"path.snapshot" = {{ dictionary = "snapshots", probability = 0.8 }}
"path.number" = {{ dictionary = "numbers", probability = 0.8 }}
"header.Range" = {{ dictionary = "ranges", probability = 0.8 }}

[[operations]]
# another cutover is under way, none is, or this machine has no systemd: what 409 says
include-path-regex = "^/v1/cutover"
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "409"]

[[operations]]
# a check that only a newer puller knows is kept
include-path = "/v1/checks"
checks.negative_data_rejection.expected-statuses = ["204", "400", "401", "404", "405"]

[[operations]]
# it has no end
include-path = "/v1/events"
enabled = false

[[operations]]
include-path = "{archive_path}"
parameters = {{ "header.If-Range" = {{ dictionary = "archive", probability = 0.8 }} }}

[[operations]]
include-path = "{manifest_path}"
parameters = {{ "header.If-Range" = {{ dictionary = "manifest", probability = 0.8 }} }}
"""
"""What schemathesis may know: the token, and values with which requests lead somewhere."""


def configuration(agent: Agent) -> str:
    """Return :data:`CONFIGURATION` for ``agent``."""
    snapshot = agent.scan().id
    archive, manifest = protocol.archive_path(snapshot, "tar"), protocol.manifest_path(snapshot)
    return CONFIGURATION.format(
        token=agent.token,
        snapshot=snapshot,
        archive=ask(agent, "HEAD", archive)[1].replace('"', '\\"'),
        manifest=ask(agent, "HEAD", manifest)[1].replace('"', '\\"'),
        archive_path=protocol.archive_path("{snapshot}", "{suffix}"),
        manifest_path=protocol.manifest_path("{snapshot}"),
    )


def statuses_without_token(agent: Agent) -> dict[tuple[str, str], int]:
    """Return what each operation answers a stranger. The log has not all of these requests."""
    found = {}
    for method, template in described():
        with closing(agent.connect()) as http:
            http.request(method, re.sub(r"{\w+}", "0", template))
            response = http.getresponse()
            response.read()
            found[method, template] = response.status
    return found


def provoke(agent: Agent) -> None:
    """Request responses that random requests may miss, one for each kind of condition."""
    snapshot = agent.scan().id
    archives = [protocol.archive_path(snapshot, each.value) for each in Encoding]
    conditions = [
        {"Range": "bytes=0-9"}, {"Range": "bytes=999999999999999-"},
        {"If-Match": '"other"'}, {"If-None-Match": "*"},
    ]  # fmt: skip
    for route in (*archives, protocol.manifest_path(snapshot)):
        for method in ("GET", "HEAD"):
            for condition in conditions:
                with closing(agent.connect()) as http:
                    token = {"Authorization": f"Bearer {agent.token}"}
                    http.request(method, route, headers=token | condition)
                    http.getresponse().read()


def ask_for_pieces(agent: Agent) -> None:
    """Request a frame of a large file as a client that has a part of it."""
    snapshot = agent.scan()
    for number in range(snapshot.frames):
        for encoding in Encoding:
            route = protocol.frame_path(snapshot.id, number, encoding.value)
            for method in ("GET", "HEAD"):
                ask(agent, method, route, {protocol.HELD_PIECES: protocol.LATER})


def move_twice(agent: Agent) -> None:
    """Undo one cutover and commit another, because random requests know no name."""
    undone, committed = "0" * 32, "1" * 32
    for name in (undone, committed):
        begin = json.dumps({"id": name, "puller": "test"}).encode()
        agent.ask("POST", protocol.CUTOVER, begin)
        agent.ask("PUT", f"{protocol.CUTOVER}/{name}/lease")
        if name == undone:
            agent.ask("DELETE", f"{protocol.CUTOVER}/{name}")
    snapshot = json.dumps({"snapshot": agent.scan().id}).encode()
    agent.ask("PUT", f"{protocol.CUTOVER}/{committed}/commit", snapshot)


@pytest.mark.long
def test_schemathesis_finds_no_other_answer(small: Agent, tmp_path: Path) -> None:
    """Schemathesis gets every response that a sound library and disk give.

    With all its checks but that of wrong tokens, which are slowed: see test_hostile_requests.
    """
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(configuration(small))
    without_token = statuses_without_token(small)
    provoke(small)
    with only_plex():
        move_twice(small)
    ask_for_pieces(small)
    done = subprocess.run(
        [
            SCHEMATHESIS,
            "--config-file",
            settings,
            "run",
            FILE,
            "--url",
            small.url,
            "--no-color",
            "--exclude-checks",
            "ignored_auth",
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert small.token not in done.stdout
    asked = [line for line in read_log(small.log) if line.get("event") == "request"]
    for (method, template), operation in described().items():
        if template == protocol.EVENTS:
            continue
        path = re.compile(re.sub(r"{\w+}", "[^/]+", template.replace(".", r"\.")))
        got = {
            str(line["status"])
            for line in asked
            if line["method"] == method and path.fullmatch(line["path"])
        }
        got.add(str(without_token[method, template]))
        missing = set(operation["responses"]) - NOT_PROVOKED - got
        if "{" not in template:
            missing.discard("404")  # it takes a snapshot that was handed out and is gone
        assert not missing, (method, template)
