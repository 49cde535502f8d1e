"""A real Prometheus, and its tool for rules and series."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from rig.cluster.cluster import TOOLS
from rig.ports import reserve_port
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROMTOOL, _PROMETHEUS = (TOOLS / "usr" / "bin" / name for name in ("promtool", "prometheus"))


def promtool(*arguments: str | Path) -> None:
    """Run promtool, which must succeed."""
    done = subprocess.run([_PROMTOOL, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A server that runs.

    Args:
        port: its port.
        time: the moment of all queries, in seconds of Unix time.
    """

    def __init__(self, port: int, time: int) -> None:
        self._port = port
        self._time = time

    def is_ready(self) -> bool:
        """Return whether it answers queries."""
        try:
            return self._get("/-/ready")[0] == HTTPStatus.OK
        except OSError:
            return False

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query, which must be understood."""
        asked = urlencode({"query": expression, "time": self._time})
        found: list[dict[str, Any]] = self._data(f"query?{asked}")["result"]
        return found

    def number(self, expression: str) -> float:
        """Return the one value of an expression."""
        (found,) = self.ask(expression)
        return float(found["value"][1])

    def by(self, label: str, expression: str) -> dict[str, float]:
        """Return the values of an expression by one of their labels; no two may have the same."""
        results = self.ask(expression)
        found = {each["metric"][label]: float(each["value"][1]) for each in results}
        assert len(found) == len(results), results
        return found

    def targets(self) -> list[dict[str, str]]:
        """Return the labels of each target that is scraped."""
        return [each["labels"] for each in self._data("targets")["activeTargets"]]

    def _data(self, path: str) -> Any:  # noqa: ANN401 - whatever was asked for
        status, body = self._get(f"/api/v1/{path}")
        assert status == HTTPStatus.OK, body
        return json.loads(body)["data"]

    def _get(self, path: str) -> tuple[int, bytes]:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=30)) as http:
            http.request("GET", path)
            answer = http.getresponse()
            return answer.status, answer.read()


@contextmanager
def running_prometheus(
    folder: Path, settings: dict[str, Any], *options: str, time: int = 0
) -> Iterator[Prometheus]:
    """Start a server with ``settings``, and stop it at the end."""
    port = reserve_port()
    (folder / "prometheus.yml").write_text(json.dumps(settings))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                _PROMETHEUS, f"--web.listen-address=127.0.0.1:{port}",
                f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                *options,
            ],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
        try:
            server = Prometheus(port, time)
            wait_until(server.is_ready, 60, meanwhile=process, every=0.1)
            yield server
        finally:
            process.terminate()
            process.wait(60)
