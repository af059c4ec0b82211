"""The documents name what there is: links lead somewhere, and files, modules and names in the code exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "taskrun"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
INSIDE = [ROOT / "docs" / name for name in ("architecture.md", "postgres.md")]  # pages that name modules by their end
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"(?:docs|taskrun|tests)/[\w./-]+")
MODULE = re.compile(r"(\w+(?:/\w+)+)(?:\.(\w+))?")
MEMBER = re.compile(r"([A-Z]\w+)\.(\w+)(?:\(.*\))?")


def prose(page: Path) -> str:
    """Returns a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def quoted(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def broken(page: Path) -> Iterator[str]:
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert not list(broken(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_project_exists(page: Path) -> None:
    named = [name for name in quoted(page) if FILE.fullmatch(name)]
    assert not [name for name in named if not (ROOT / name).exists()]


def found(name: str) -> list[Path]:
    """Returns the modules, folders and SQL files that a name like `core/claims` may mean."""
    files = [*PACKAGE.rglob("*"), *(ROOT / "tests" / "simulation").glob("*.py")]
    paths = [path for path in files if path.is_dir() or path.suffix in (".py", ".sql")]
    ends = (f"/{name}", f"/{name}.py")
    return [path for path in paths if str(path).endswith(ends)]


@cache
def names_in(path: Path) -> set[str]:
    """Returns what a module defines: functions, classes, and whatever is assigned."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return names


@pytest.mark.parametrize("page", INSIDE, ids=lambda page: page.name)
def test_every_module_exists_under_that_name_alone(page: Path) -> None:
    named = [match for name in quoted(page) if (match := MODULE.fullmatch(name)) and not (ROOT / name).exists()]
    wrong = []
    for match in named:
        path, member = match[1], match[2]
        if member == "sql":
            path, member = f"{path}.sql", None
        paths = found(path)
        if len(paths) != 1 or (member is not None and member not in names_in(paths[0])):
            wrong.append(match[0])
    assert named and not wrong


def test_every_member_of_a_class_exists() -> None:
    modules = [names_in(path) for path in PACKAGE.rglob("*.py")]
    for page in INSIDE:
        for match in filter(None, map(MEMBER.fullmatch, quoted(page))):
            assert any({match[1], match[2]} <= names for names in modules), match[0]
