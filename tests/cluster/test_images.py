"""The images as a cluster runs them: hardened, and without anything they do not need."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml
from rig.cluster import containers
from rig.oracle import rsync_differences
from rig.ports import reserve_port
from rig.programs import Agent

from bench.plexlibrary import LibraryShape, make_library
from shared import __version__

pytestmark = pytest.mark.images

ROOT = Path(__file__).parent.parent.parent
MAX_BYTES = 120_000_000
AS_ROOT = ("--user=0:0", "--cap-add=CHOWN", "--cap-add=DAC_OVERRIDE", "--cap-add=FOWNER")
NO_SHELL = tuple(f"--volume=/dev/null:/usr/bin/{each}:ro" for each in ("dash", "bash"))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return the library of a small Plex, owned by a user that the cluster does not know."""
    library = tmp_path / "vm" / "Library"
    make_library(library, LibraryShape(1_500, 30_000_000, 6_000_000))
    for path in (library, *library.rglob("*")):
        os.chown(path, 997, 997, follow_symlinks=False)
    return library


def options(agent: Agent, target: Path, *more: str) -> tuple[str, ...]:
    """Return the options of a container that pulls from ``agent`` into ``target``."""
    return (
        *(f"--volume={target}:/config", f"--env=PLEXODUS_PAIRING={agent.pairing}"),
        *("--env=PLEXODUS_TARGET=/config", "--env=PLEXODUS_NO_CUTOVER=1", *more),
    )


def owners(folder: Path) -> set[tuple[int, int]]:
    """Return the owners of everything in it."""
    return {(info.st_uid, info.st_gid) for info in map(os.lstat, folder.rglob("*"))}


def test_pull_as_root_gives_plex_its_files(agent: Agent, target: Path, library: Path) -> None:
    """A pull with three capabilities sets owners, and a second run changes nothing."""
    ours = options(agent, target, *AS_ROOT, *NO_SHELL, "--env=PLEX_UID=1000", "--env=PLEX_GID=1000")
    containers.run("puller", options=ours)
    assert rsync_differences(library, target / "Library", owner=False) == []
    assert owners(target / "Library") == {(1000, 1000)}
    again = containers.run("puller", options=ours)
    assert "everything is there" in again.stderr


def test_pull_as_the_images_own_user(agent: Agent, target: Path, library: Path) -> None:
    """Without capabilities a pull succeeds where it may write, and owns its files."""
    os.chown(target, 1000, 1000)
    containers.run("puller", options=options(agent, target))
    assert rsync_differences(library, target / "Library", owner=False) == []
    assert owners(target / "Library") == {(1000, 1000)}


def test_volume_of_another_user(agent: Agent, target: Path) -> None:
    """Another user's volume is refused with its path and a remedy."""
    target.chmod(0o755)
    done = containers.run("puller", options=options(agent, target), check=False)
    assert done.returncode == 15
    assert "/config" in done.stderr
    assert not list(target.iterdir())


def test_last_word_of_a_container(agent: Agent, target: Path, tmp_path: Path) -> None:
    """The termination message is in the file that the kubelet provides."""
    last_word = tmp_path / "termination-log"
    last_word.touch()
    last_word.chmod(0o666)
    (target / "Library").mkdir()
    (target / "Library" / "not ours").touch()
    os.chown(target, 1000, 1000)
    ours = options(agent, target, f"--volume={last_word}:/dev/termination-log")
    done = containers.run("puller", "pull", "--on-existing=fail", options=ours, check=False)
    assert done.returncode == 14
    assert last_word.read_text().startswith("Permanent TargetConflict, exit code 14: ")


def test_script_of_the_older_way(agent: Agent, target: Path, library: Path, tmp_path: Path) -> None:
    """Plex's chart can run the script as root, with a script that only root can read."""
    text = (ROOT / "charts" / "values" / "script.yaml").read_text()
    values = yaml.safe_load(text)["initContainer"]
    assert values["image"]["tag"] == f"{__version__}-root"
    for name, content in (("init.sh", values["script"]), ("PLEXODUS_PAIRING", agent.pairing)):
        (tmp_path / name).write_text(content)
    (tmp_path / "init.sh").chmod(0o700)
    target.chmod(0o755)
    containers.run(
        "puller-root",
        options=(
            *AS_ROOT[1:], "--entrypoint=/init/init.sh", "--env=PLEXODUS_NO_CUTOVER=1",
            f"--volume={target}:/config", f"--volume={tmp_path}/init.sh:/init/init.sh:ro",
            f"--volume={tmp_path}/PLEXODUS_PAIRING:/run/plexodus/PLEXODUS_PAIRING:ro",
        ),
    )  # fmt: skip
    assert rsync_differences(library, target / "Library", owner=False) == []
    assert owners(target / "Library") == {(1000, 1000)}


def test_agent_in_a_container(target: Path, library: Path, tmp_path: Path) -> None:
    """The agent runs as the library's user with one writable folder."""
    state, port = tmp_path / "state", reserve_port()
    state.mkdir()
    os.chown(state, 997, 997)
    ours = (
        *("--user=997:997", f"--volume={library}:/Library:ro"),
        *(f"--volume={state}:/var/lib/plexodus", *NO_SHELL),
    )
    paired = containers.run("agent", "pair", "--address", f"127.0.0.1:{port}", options=ours)
    serve = containers.command("agent", "serve", "--listen", f"127.0.0.1:{port}", options=ours)
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            next(line for line in process.stderr if "listening" in line or "serving" in line)
            printed = paired.stdout.strip()
            agent = Agent(state, library, tmp_path / "log", port, pairing=printed)
            os.chown(target, 1000, 1000)
            containers.run("puller", options=options(agent, target))
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert rsync_differences(library, target / "Library", owner=False) == []


def test_watch_answers_probes(target: Path) -> None:
    """The sidecar answers probes on the port that the chart names."""
    port = reserve_port()
    watch = containers.command(
        "puller", "watch", "--target=/config", f"--listen=127.0.0.1:{port}",
        options=(f"--volume={target}:/config",),
    )  # fmt: skip
    with subprocess.Popen(watch, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            next(line for line in process.stderr if "watching" in line)
            with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as http:
                http.request("GET", "/healthz")
                assert http.getresponse().status == 200
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.mark.parametrize("name", ["puller", "agent"])
def test_image_has_version_labels_and_no_build_tools(name: str) -> None:
    """An image has version, accelerator, labels, an unprivileged user, and no build tools."""
    shown = containers.run(name, "--version").stdout
    assert shown == f"plexodus-{name}, version {__version__}\naccelerator: in use\n"
    found = containers.inspected(containers.image(name))
    assert found["Architecture"] == containers.ARCHITECTURE
    assert found["Config"]["User"] == "1000:1000"
    labels = found["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert len(labels["org.opencontainers.image.revision"]) == 40
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    look = (
        "import importlib.util, shutil;"
        "print(*filter(importlib.util.find_spec, ('pip', 'setuptools', 'hatchling', 'maturin')),"
        "*filter(shutil.which, ('pip', 'gcc', 'cc', 'make', 'cargo')))"
    )
    looked = containers.run(
        name, "-c", look, options=("--entrypoint=/opt/plexodus/bin/python3",)
    )  # fmt: skip
    assert looked.stdout == "\n"


@pytest.mark.parametrize("name", ["puller", "agent"])
def test_size_above_the_base(name: str) -> None:
    """An image adds at most 120 MB to its base."""
    above = containers.inspected(containers.image(name))["Size"]
    above -= containers.inspected(containers.BASE)["Size"]
    print(f"{name}: {above / 1e6:.0f} MB")  # noqa: T201 - a figure people ask for
    assert 0 < above <= MAX_BYTES


@pytest.mark.parametrize("name", ["puller", "agent"])
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_wheels_for_each_architecture(name: str, architecture: str, tmp_path: Path) -> None:
    """No locked package needs a compiler on any architecture."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"),
            *("--only-binary=:all:", "--require-hashes", "--dest", tmp_path),
            *(
                f"--platform=manylinux_2_28_{architecture}",
                f"--platform=manylinux2014_{architecture}",
            ),
            *("--python-version=3.11", "--requirement", ROOT / f"requirements-{name}.lock"),
        ],
        check=True,
        capture_output=True,
    )
    assert len(list(tmp_path.glob("*.whl"))) > 10
