"""Measures how the chart grows with the number of migrations in one release.

``make bench-fleet``: Helm renders many migrations beside one, in turns, without a cluster. Prints
the seconds of both and their ratio, the objects, the size of the values, and that of the release as
Helm stores it: JSON, compressed and in Base64, in a Secret of a megabyte at most.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import re
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent
_CHART = _ROOT / "charts" / "plexodus"
_HELM = _ROOT / "build" / "tools" / "bin" / "helm"
_RELEASE, _NAMESPACE = "home", "media"
_KIND = re.compile(r"^kind: ", re.MULTILINE)
_KB = 1000


@dataclass(frozen=True)
class Rendering:
    """A release of the chart, as Helm has rendered it several times."""

    migrations: int
    seconds: list[float]
    """One for each time."""
    objects: int
    values_bytes: int
    release_bytes: int
    """Size of what Helm stores of it."""

    @property
    def median(self) -> float:
        """Return the median of the seconds."""
        return statistics.median(self.seconds)


def fleet_values(migrations: int) -> dict[str, Any]:
    """Return the chart's values for so many servers, each with a Job and a claim of its own."""
    return {
        "migrations": [{"name": f"server-{number:03}"} for number in range(migrations)],
        "defaults": {
            "pairing": {"existingSecret": "{name}-pairing"},
            "settings": {"PLEXODUS_PLEX_VERSION": "1.40.1.8227-c0dd5a73e"},
            "job": {
                "enabled": True,
                "until": "done",
                "claim": {"name": "config-{name}", "create": True, "size": "50Gi"},
            },
        },
        "fleet": {"name": "home", "maxParallel": 5, "priorityClassName": "moves"},
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    }


def measure(counts: list[int], rounds: int) -> list[Rendering]:
    """Render releases of so many migrations in turns."""
    with tempfile.TemporaryDirectory(prefix="plexodus-fleet-") as folder:
        files = {count: Path(folder, f"{count}.json") for count in counts}
        for count, path in files.items():
            path.write_text(json.dumps(fleet_values(count)))
        seconds: dict[int, list[float]] = {count: [] for count in counts}
        manifests = dict.fromkeys(counts, "")
        for _ in range(rounds):
            for count, path in files.items():
                begun = time.perf_counter()
                manifests[count] = _helm("template", path)
                seconds[count].append(time.perf_counter() - begun)
        return [
            Rendering(
                migrations=count,
                seconds=seconds[count],
                objects=len(_KIND.findall(manifests[count])),
                values_bytes=path.stat().st_size,
                release_bytes=_stored(_helm("install", path, "--dry-run=client", "-o", "json")),
            )
            for count, path in files.items()
        ]


def _helm(command: str, values: Path, *options: str) -> str:
    given = (_RELEASE, str(_CHART), "--namespace", _NAMESPACE, "--values", str(values))
    done = subprocess.run([_HELM, command, *given, *options], check=True, capture_output=True)
    return done.stdout.decode()


def _stored(release: str) -> int:
    """Return the bytes that Helm's Secret has of a release, given as JSON."""
    compact = json.dumps(json.loads(release), separators=(",", ":"), ensure_ascii=False)
    return len(base64.b64encode(gzip.compress(compact.encode())))


def table(found: list[Rendering]) -> str:
    """Return the figures in Markdown; the ratio is that of the medians."""
    first = found[0]
    heads = ["migrations", "seconds, median", "least and most", "ratio"]
    heads += ["objects", "values, KB", "release, KB"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    lines += [
        f"| {each.migrations} | {each.median:.2f} | {min(each.seconds):.2f} to"
        f" {max(each.seconds):.2f} | {each.median / first.median:.1f} | {each.objects:,} |"
        f" {each.values_bytes / _KB:.1f} | {each.release_bytes / _KB:.0f} |"
        for each in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure what the command line asks for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--migrations", nargs="+", type=int, default=[1, 500])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(table(measure(options.migrations, options.rounds)))


if __name__ == "__main__":
    main()
