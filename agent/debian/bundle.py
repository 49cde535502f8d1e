"""Copy the interpreter that runs this program, and the agent's requirements, into one folder.

The VM's own Python is too old on Ubuntu 22.04, and a release upgrade would break a virtual
environment. The copy needs only the C library and a few others, which dpkg-shlibdeps finds. It
finds its standard library beside itself.

Usage: bundle.py REPOSITORY FOLDER
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LEFT_OUT = (
    "test", "tests", "idlelib", "tkinter", "turtle*", "turtledemo", "ensurepip", "lib2to3",
    "pydoc_data", "config-*", "site-packages", "dist-packages", "sitecustomize.py", "__pycache__",
    # extensions whose libraries a server does not have
    "_tkinter*", "_test*", "_ctypes_test*", "xx*", "readline*", "_curses*", "_dbm*", "_gdbm*",
    "nis*", "ossaudiodev*",
)  # fmt: skip


def main() -> None:
    """Copy interpreter, standard library, requirements and our own packages."""
    repository, folder = Path(sys.argv[1]), Path(sys.argv[2])
    library = folder / "lib" / _VERSION
    _copy_interpreter(folder)
    shutil.copytree(
        sysconfig.get_path("stdlib"), library, ignore=shutil.ignore_patterns(*_LEFT_OUT)
    )
    for extension in library.glob("lib-dynload/*.so"):
        _run("patchelf", "--remove-rpath", extension)
        _run("strip", "--strip-unneeded", extension)
    _install(repository, folder)
    # The folder is read-only later, and the times of files in a package are arbitrary.
    _run(
        folder / "bin" / "python3", "-I", "-m", "compileall", "-q",
        "--invalidation-mode", "unchecked-hash", library,
    )  # fmt: skip
    _run(folder / "bin" / "python3", "-I", "-m", "agent", "--version")


def _copy_interpreter(folder: Path) -> None:
    binary = folder / "bin" / "python3"
    binary.parent.mkdir(parents=True)
    shutil.copy(os.path.realpath(sys.executable), binary)
    _run("strip", "--strip-unneeded", binary)
    name = sysconfig.get_config_var("INSTSONAME")
    needed = _output("patchelf", "--print-needed", binary)
    if name in needed.split():  # Debian's has the library inside
        copy = folder / "lib" / name
        copy.parent.mkdir(parents=True)
        shutil.copy(Path(sysconfig.get_config_var("LIBDIR")) / name, copy)
        _run("strip", "--strip-unneeded", copy)
        _run("patchelf", "--set-rpath", "$ORIGIN/../lib", binary)
        _run("patchelf", "--remove-rpath", copy)


def _install(repository: Path, folder: Path) -> None:
    """Install the locked requirements, the accelerator and our packages with the build's pip."""
    ask = "import site; print(site.getsitepackages()[0])"
    answer = _output(folder / "bin" / "python3", "-I", "-c", ask).strip()
    pip = sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"
    locked = "--require-hashes", "--requirement", repository / "requirements-agent.lock"
    _run(*pip, *locked, "--target", answer)
    accelerator = (repository / "build" / "native" / "wheel").glob("*.whl")  # none without cargo
    _run(*pip, "--no-build-isolation", repository, *accelerator, "--target", answer)
    for other in ("bin", "initpuller"):
        shutil.rmtree(Path(answer) / other)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def _output(*command: str | Path) -> str:
    return subprocess.check_output(command, text=True)


if __name__ == "__main__":
    main()
