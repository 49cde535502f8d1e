"""Files, modules and names that documents, docstrings and comments refer to exist."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("agent", "initpuller", "shared", "tests", "charts", "docs", "bench")
FILES = [
    path
    for path in (*ROOT.iterdir(), *(each for name in FOLDERS for each in (ROOT / name).rglob("*")))
    if path.is_file() and path.parent.name != "__pycache__"
]
NAMES = {
    str(each.relative_to(ROOT))
    for path in FILES
    for each in (path, *path.parents)
    if each.is_relative_to(ROOT)
}
"""Paths of all files, and of the folders that have any."""
MODULES = [path for path in FILES if path.suffix == ".py"]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "tests" / "README.md"]
ABOUT_CODE = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "tests" / "README.md"]

SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
FILE = re.compile(rf"(?<![\w./-])(?:(?:{'|'.join(FOLDERS)})/[\w.*/-]*\w|\w[\w*/]*\.py\b)")
DOTTED = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)}|rig)(?:\.[A-Za-z_]\w*)+")
ROLE = re.compile(r":(?:mod|func|class|meth|data|attr):`~?([\w.]+)`")
NAME = re.compile(r"[A-Za-z]\w+(?:\.\w\w+)*")  # not vX.Y.Z
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def defined(tree: ast.Module) -> Iterator[str]:
    """Yield every name that a module defines, imports or assigns, attributes included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.alias):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@cache
def names_of() -> dict[Path, set[str]]:
    """Return what :func:`defined` yields for each module."""
    return {path: set(defined(ast.parse(path.read_text()))) for path in MODULES}


@cache
def words() -> set[str]:
    """Return each word of the code and of the paths."""
    code = "".join(path.read_text() for path in MODULES)
    return set(re.findall(r"\w+", code + " ".join(NAMES)))


def prose(path: Path) -> str:
    """Return the docstrings and comments of a module."""
    with io.StringIO(path.read_text()) as file:
        return "\n".join(
            token.string
            for token in tokenize.generate_tokens(file.readline)
            if token.type == tokenize.COMMENT or token.string.startswith('"""')
        )


def anchors(page: Path) -> set[str]:
    """Return the fragments that lead to the headings of a page."""
    heads = HEADING.findall(page.read_text())
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@cache
def is_there(name: str) -> bool:
    """Return whether a file or folder has this path, which may lack the folders above it."""
    return any(fnmatch(each, name) or fnmatch(each, f"*/{name}") for each in NAMES)


def is_defined(dotted: str) -> bool:
    """Return whether a dotted name is that of a module, or of a name in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        module = ROOT.joinpath("tests" if parts[0] == "rig" else "", *parts[:length])
        if length == len(parts) and str(module.relative_to(ROOT)) in NAMES:
            return True
        if (found := names_of().get(module.with_suffix(".py"))) is not None:
            return found.issuperset(parts[length:])
    return False


def of(paths: list[Path]) -> pytest.MarkDecorator:
    """Run a test for each of ``paths``."""
    return pytest.mark.parametrize("page", paths, ids=lambda path: str(path.relative_to(ROOT)))


@of(PAGES)
def test_page_names_only_files_that_exist(page: Path) -> None:
    """Each path of the repository in a code span, and each link's target and heading, exists."""
    text = page.read_text()
    paths = [path for span in SPAN.findall(text) for path in FILE.findall(span)]
    assert [path for path in paths if not is_there(path)] == []
    for target, anchor in LINK.findall(text):
        linked = page.parent / target if target else page
        assert "://" in target or linked.exists(), target
        assert not anchor or "://" in target or anchor in anchors(linked), f"{target}#{anchor}"


@of(ABOUT_CODE)
def test_page_about_code_uses_only_names_of_the_code(page: Path) -> None:
    """Each name in a code span is a word of the code."""
    spans = [span for span in SPAN.findall(page.read_text()) if NAME.fullmatch(span)]
    assert [span for span in spans if not words().issuperset(span.split("."))] == []


@pytest.mark.parametrize("package", ["shared", "agent", "initpuller"])
def test_every_room_in_the_architecture_exists(package: str) -> None:
    """The first column of each table of rooms names modules and folders of the package."""
    _, _, section = (ROOT / "ARCHITECTURE.md").read_text().partition(f"### `{package}/`")
    rows = [line.split("|")[1] for line in section.partition("###")[0].splitlines() if "|" in line]
    rooms = [f"{package}/{room}".rstrip("/") for row in rows for room in SPAN.findall(row)]
    assert rooms
    assert [room for room in rooms if not NAMES & {room, f"{room}.py"}] == []


def test_docstrings_and_comments_refer_to_what_exists() -> None:
    """Roles, dotted names of our packages, and files in docstrings and comments exist."""
    dead, everywhere = [], set().union(*names_of().values())
    for path, own in names_of().items():
        text = prose(path)
        for name in ROLE.findall(text):
            first, *others = name.split(".")
            is_own = first in own and everywhere.issuperset(others)
            dead += [] if is_own or is_there(f"{name}.py") or is_defined(name) else [(path, name)]
        dead += [(path, name) for name in DOTTED.findall(text) if not is_defined(name)]
        dead += [(path, name) for name in FILE.findall(text) if not is_there(name)]
    assert dead == []
