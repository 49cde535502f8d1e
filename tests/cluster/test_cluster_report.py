"""The cluster sees the progress of a pull, and cannot disturb it."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from rig.cluster.api_server import ApiServer, serving
from rig.oracle import rsync_differences
from rig.volume import cut_at, pull, run_puller

from initpuller.cluster import api, events, termination
from shared.program.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rig.programs import Agent

STATUS = ("--status-configmap", "plexodus-status")
NOT_TOLD = "cannot publish Events or status"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a few files."""
    library = tmp_path / "vm" / "Library"
    (library / "folder").mkdir(parents=True)
    for number in range(20):
        (library / "folder" / f"{number}").write_bytes(bytes([number]) * 50_000)
    return library


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Return the API server of this cluster."""
    server = ApiServer("plexinc/pms-docker:1.40.1.8227-c0dd5a73e")
    with serving(server, tmp_path, monkeypatch):
        yield server


def test_milestones_and_status_of_a_pull(agent: Agent, target: Path, server: ApiServer) -> None:
    """A pull sends Events about its own pod in order, and a final status."""
    done = pull(target, agent, *STATUS)

    assert done.code == 0, done.text
    assert [event["reason"] for event in server.events] == ["Started", "Verified", "Published"]
    for event in server.events:
        assert event["type"] == "Normal"
        assert event["reportingController"] == api.CONTROLLER
        assert event["regarding"]["uid"] == "the-uid"
    assert len({event["metadata"]["name"] for event in server.events}) == 3
    receipt = json.loads((target / ".plexodus" / "receipt.json").read_text())
    assert server.status_data["phase"] == "done"
    assert server.status_data["percent"] == "100"
    assert server.status_data["snapshot"] == receipt["snapshot"]
    assert server.status_data["bytes"] == server.status_data["total_bytes"]
    assert server.status_data["pod"] == "plex-0"


def test_run_that_finds_everything_done_says_nothing(
    agent: Agent, target: Path, server: ApiServer
) -> None:
    """A run with nothing to do sends no Events and, without a ConfigMap, nothing at all."""
    assert pull(target, agent).code == 0
    server.asked.clear()
    assert pull(target, agent).code == 0
    assert server.asked == []
    assert pull(target, agent, *STATUS).code == 0
    assert [method for method, _, _ in server.asked] == ["PATCH"]


def done_is_reported_later(agent: Agent, target: Path, server: ApiServer) -> None:
    """Assert that a pod which finds everything done reports that, with the figures of the move."""
    figures = {key: server.status_data.get(key) for key in ("bytes", "total_bytes")}
    server.asked.clear()
    assert pull(target, agent, *STATUS, HOSTNAME="plex-1").code == 0
    receipt = json.loads((target / ".plexodus" / "receipt.json").read_text())
    status = server.status_data
    assert (status["phase"], status["percent"], status["error"]) == ("done", "100", "")
    assert (status["pod"], status["snapshot"]) == ("plex-1", receipt["snapshot"])
    assert status["entries"] == status["total_entries"] == str(receipt["entries"])
    assert figures == {key: status.get(key) for key in figures}
    assert [method for method, _, _ in server.asked] == ["PATCH"]


LAST_REPORT = "initpuller.report.progress.PullProgress.done"


def test_pod_is_lost_before_its_last_report(agent: Agent, target: Path, server: ApiServer) -> None:
    """The next pod reports that the library is there."""
    with cut_at(LAST_REPORT):
        pull(target, agent, *STATUS)
    assert (target / "Library").is_dir()
    assert server.status_data["phase"] not in ("done", "failed")
    assert int(server.status_data["bytes"]) > 0
    done_is_reported_later(agent, target, server)


@pytest.mark.parametrize("answer", [(403, "{}"), (503, "restarting")], ids=["refused", "restarts"])
def test_last_report_is_refused(
    agent: Agent, target: Path, server: ApiServer, answer: tuple[int, str]
) -> None:
    """The end is reported by the first run that the API server lets do it."""
    server.instead = {"/configmaps/": [answer] * 100}
    for _ in range(2):
        assert pull(target, agent, *STATUS).code == 0
        assert server.status_data == {}
    server.instead = {}
    done_is_reported_later(agent, target, server)


def test_failure_after_the_move_is_not_the_last_status(
    agent: Agent, target: Path, server: ApiServer
) -> None:
    """A mistake in the options of a later run is gone from the status when it is corrected."""
    assert pull(target, agent, *STATUS).code == 0
    done = pull(target, agent, *STATUS, "--downtime", "60", "--max-downtime", "5")
    assert done.code == ExitCode.CONFIGURATION
    assert server.status_data["phase"] == "failed"
    done_is_reported_later(agent, target, server)


def test_configmap_is_made_again(agent: Agent, target: Path, server: ApiServer) -> None:
    """A release that is installed again beside the same volume shows the end of the move."""
    assert pull(target, agent, *STATUS).code == 0
    server.status_data = {}
    done_is_reported_later(agent, target, server)


def test_end_is_reported_by_the_puller_that_waited(
    agent: Agent, target: Path, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A puller that waited for one whose pod was then lost reports the end."""
    with cut_at(LAST_REPORT):
        pull(target, agent, *STATUS)
    monkeypatch.setattr("initpuller.pull.recipe.published_earlier", lambda *_, **__: None)
    done_is_reported_later(agent, target, server)


def test_slow_processor_delays_the_report_of_a_failure(
    agent: Agent, target: Path, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is reported although the import of the API's client takes very long."""
    real, since = api.load, time.monotonic()

    def slow() -> tuple[Any, Any, Any]:
        """Return the client, as slowly as a container with little CPU imports it."""
        time.sleep(max(0.0, since + 4 - time.monotonic()))
        return real()

    monkeypatch.setattr(api, "load", slow)
    assert pull(target, agent, *STATUS, "--owner", "nobody").code == ExitCode.CONFIGURATION
    assert server.status_data["phase"] == "failed"


def test_failure_is_told_with_its_reason(
    agent: Agent, target: Path, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is an Event, a status and a termination message, without the token."""
    last_word = tmp_path / "termination-log"
    last_word.touch()
    monkeypatch.setattr(termination, "TERMINATION_LOG", str(last_word))
    (target / "Library").mkdir(parents=True)
    (target / "Library" / "not ours").touch()

    done = pull(target, agent, *STATUS, "--on-existing", "fail")

    assert done.code == ExitCode.CONFLICT
    [event] = server.events
    assert (event["type"], event["reason"]) == ("Warning", "Failed")
    assert event["note"] == done.reason() == server.status_data["error"]
    assert last_word.read_text() == f"Permanent TargetConflict, exit code 14: {done.reason()}"
    assert agent.token not in json.dumps([server.events, server.status_data])


def test_last_word_about_a_mistake_in_the_options(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong option is reported in the termination message."""
    last_word = tmp_path / "termination-log"
    last_word.write_text("of the container's last run")
    monkeypatch.setattr(termination, "TERMINATION_LOG", str(last_word))
    run_puller("pull", "--target", target, "--owner", "nobody", pairing="plexodus://t@h:1?fp=00")
    assert last_word.read_text().startswith("Permanent ConfigurationError, exit code 2: ")
    assert "\n" not in last_word.read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--jobs", "99"), "--jobs"),
        (("--downtime", "60", "--max-downtime", "5"), "--max-downtime"),
        (("--map", "nonsense"), "not a mapping"),
    ],
    ids=["no such number", "options that contradict", "no mapping"],
)
def test_options_that_cannot_be_used_are_a_failure_for_the_cluster(
    agent: Agent, target: Path, server: ApiServer, options: tuple[str, ...], named: str
) -> None:
    """A pull that refuses its options leaves its reason in the status, as any other failure."""
    variable = {"PLEXODUS_STATUS_CONFIGMAP": STATUS[1]}
    command: list[str | Path] = ["pull", "--target", target, *options]
    done = run_puller(*command, pairing=agent.pairing, **variable)

    assert done.code == ExitCode.CONFIGURATION
    assert server.status_data["phase"] == "failed"
    assert named in server.status_data["error"]
    assert [event["reason"] for event in server.events] == ["Failed"]


def test_no_rights_at_all(agent: Agent, target: Path, server: ApiServer) -> None:
    """Without rights one line is logged, and the pull continues."""
    server.refuses = "/"
    done = pull(target, agent, *STATUS, "--plex-version", "1.40.1.8227-c0dd5a73e")
    assert done.code == 0
    assert [line["event"] for line in done.log].count(NOT_TOLD) == 1
    assert (target / "Library").is_dir()


@pytest.mark.parametrize("asked", [True, False], ids=["a status is asked for", "a pod"])
def test_no_token(
    agent: Agent, target: Path, monkeypatch: pytest.MonkeyPatch, *, asked: bool
) -> None:
    """Without a token one line is logged with its expected path."""
    if not asked:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    done = pull(target, agent, *(STATUS if asked else ()))
    assert done.code == 0
    [line] = [line for line in done.log if line["event"] == NOT_TOLD]
    assert api.token_path() in line["reason"]


def test_identity_of_the_pod_is_given(agent: Agent, target: Path, server: ApiServer) -> None:
    """A pod with the identity from the downward API needs no right to read Pods, and reads none."""
    server.refuses = "/pods/"
    done = pull(target, agent, *STATUS, "--plex-version", "1.40.1.8227-c0dd5a73e", POD_UID="u")
    assert done.code == 0
    assert [event["regarding"]["uid"] for event in server.events] == ["u", "u", "u"]
    assert not [path for _, path, _ in server.asked if "/pods/" in path]


def test_name_server_does_not_answer(
    agent: Agent, target: Path, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent name server does not keep the process from ending."""
    is_over, real = threading.Event(), socket.getaddrinfo

    def ask(host: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as it has them
        if host == "api.example.org":
            is_over.wait()
        return real("localhost", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "api.example.org")
    monkeypatch.setattr(api, "_IMAGE_SECONDS", 0.2)
    before = set(threading.enumerate())
    try:
        done = pull(target, agent, *STATUS)
        assert done.code == 0
        left = set(threading.enumerate()) - before
        assert left
        assert all(thread.daemon for thread in left)
    finally:
        is_over.set()
    for thread in left:
        thread.join(10)


@pytest.mark.parametrize("refused", ["/pods/", "/events", "/configmaps/"])
def test_rights_are_missing(
    agent: Agent, target: Path, library: Path, server: ApiServer, refused: str
) -> None:
    """With some rights, everything allowed is reported, and one line is logged."""
    server.refuses = refused
    done = pull(target, agent, *STATUS)
    assert done.code == 0
    assert rsync_differences(library, target / "Library") == []
    [line] = [line for line in done.log if line["event"] == NOT_TOLD]
    assert "403 not for you" in line["reason"]
    assert bool(server.events) == (refused == "/configmaps/")
    assert (server.status_data.get("phase") == "done") == (refused != "/configmaps/")


@pytest.mark.parametrize("path", ["/pods/", "/events", "/configmaps/"])
@pytest.mark.parametrize(
    "answer", [(429, '{"message":"slow down"}'), (503, "restarting"), (500, '"oops"')], ids=str
)
def test_api_server_restarts_while_it_is_told(
    agent: Agent, target: Path, server: ApiServer, path: str, answer: tuple[int, str]
) -> None:
    """After a restart of the API server each Event exists once, with the final status."""
    server.instead = {path: [answer] * 3}
    done = pull(target, agent, *STATUS, "--plex-version", "1.40.1.8227-c0dd5a73e")
    assert done.code == 0
    assert [event["reason"] for event in server.events] == ["Started", "Verified", "Published"]
    assert server.status_data["phase"] == "done"
    assert server.instead == {path: []}


def test_answer_to_an_event_is_lost(agent: Agent, target: Path, server: ApiServer) -> None:
    """An Event whose response is lost is sent again, and exists once."""
    server.instead = {"/events": [(500, "lost"), (409, '{"reason":"AlreadyExists"}')]}
    assert pull(target, agent, *STATUS).code == 0
    assert [event["reason"] for event in server.events] == ["Verified", "Published"]


@pytest.mark.parametrize(
    "mistake", [("--owner", "nobody"), ("--listen", "nowhere"), ("--set-preference", "novalue")]
)
def test_mistake_in_the_settings_is_told(
    agent: Agent, target: Path, server: ApiServer, mistake: tuple[str, str]
) -> None:
    """A wrong setting is reported by an Event and in the status."""
    done = pull(target, agent, *STATUS, *mistake)
    assert done.code == ExitCode.CONFIGURATION
    assert [event["reason"] for event in server.events] == ["Failed"]
    assert server.events[0]["note"] == done.reason() == server.status_data["error"]


def test_library_that_is_not_ours(agent: Agent, target: Path, server: ApiServer) -> None:
    """An unverified library gets a warning, because Plex will start on it."""
    (target / "Library").mkdir()
    (target / "Library" / "file").touch()
    assert pull(target, agent, *STATUS).code == 0
    [event] = server.events
    assert (event["type"], event["reason"]) == ("Warning", "Skipped")
    assert server.status_data["phase"] == "skipped"


def test_api_server_stalls(
    agent: Agent, target: Path, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stalled API server delays the end of a pull by a moment only."""
    monkeypatch.setattr(api, "_SECONDS", 0.2)
    monkeypatch.setattr(events, "_LAST_SECONDS", 0.5)
    assert pull(target, agent, *STATUS, "--plex-version", "1.40.1.8227-c0dd5a73e").code == 0
    usual = _seconds(target.parent / "usual", agent)
    server.seconds = 30
    assert _seconds(target.parent / "stalled", agent) < usual + 2


def test_api_server_is_gone(
    agent: Agent, target: Path, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an API server nothing is reported, and the pull succeeds."""
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    done = pull(target, agent, *STATUS)
    assert done.code == 0
    assert server.asked == []
    assert [line["event"] for line in done.log].count(NOT_TOLD) == 1


def test_long_pulls_tell_how_far_they_are(
    agent: Agent, target: Path, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long pull reports its progress now and then."""
    monkeypatch.setattr(events, "_PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(events, "_GLANCE", 0.01)
    monkeypatch.setattr("initpuller.pull.transfer.BATCH", 1)
    assert pull(target, agent, *STATUS).code == 0
    notes = [event["note"] for event in server.events if event["reason"] == "Progress"]
    assert notes
    assert all(" %, " in note for note in notes)


def _seconds(target: Path, agent: Agent) -> float:
    target.mkdir()
    began = time.monotonic()
    done = pull(target, agent, *STATUS, "--plex-version", "1.40.1.8227-c0dd5a73e")
    assert done.code == 0, done.text
    return time.monotonic() - began
