"""The floors of the house: nothing imports upward, siblings do not import each other, no cycles, no hidden imports."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "taskrun"
FLOORS: dict[str, set[str]] = {  # a floor, and those it may see besides itself
    "model": set(),
    "rules": {"model"},
    "declarations": {"rules", "model"},
    "stores": {"model"},
    "processes": {"model"},
    "engine.messages": {"rules", "model"},
    "engine.core": {"engine.messages", "processes", "stores", "declarations", "rules", "model"},
    "engine.executor": {"engine.messages", "processes", "declarations", "rules", "model"},
    "engine.api": {"engine", "stores", "processes", "declarations", "rules", "model"},
    "testing": {"engine", "stores", "declarations", "rules", "model"},
    "builtins": {"declarations", "rules", "model"},
    "daemon": {"builtins", "engine", "stores", "processes", "declarations", "rules", "model"},
    "cli": {"daemon", "builtins", "engine", "stores", "processes", "declarations", "rules", "model", "testing"},
}
MAX_LINES = 500
MAX_BODY, USUAL_BODY = 40, 20  # lines of a function's body, its docstring aside: of any one, and of nine in ten
NAMED_AFTER_SUBJECTS = {"commands", "screens"}  # folders whose modules may be called like a module elsewhere
METAPHORS = frozenset(
    [
        "book",
        "bury",
        "counter",
        "court",
        "crew",
        "desk",
        "door",
        "far",
        "gate",
        "grave",
        "half",
        "handover",
        "hands",
        "heir",
        "house",
        "lane",
        "leash",
        "ledger",
        "mourn",
        "neighbour",
        "neighbours",
        "obituary",
        "outlet",
        "parting",
        "permit",
        "reception",
        "resident",
        "rider",
        "riders",
        "shim",
        "transcript",
    ]
)
MODULES = sorted(path for path in ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "relative imports hide which floor they reach"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    known = {name_of(module) for module in MODULES}
    found = set(imports(ast.parse(path.read_text())))
    return {name for name in found if name in known and name != "taskrun"}


def floor_of(module: str) -> str | None:
    """Returns the innermost floor that a module is on."""
    parts = module.split(".")[1:]
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in FLOORS), None)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_sees_only_its_own_floor_and_those_below(path: Path) -> None:
    floor = floor_of(name_of(path))
    if floor is None:
        return  # the package's faces: they hand names on
    allowed = FLOORS[floor] | {floor}
    seen = {name: floor_of(name) for name in own_imports(path)}
    above = {name for name, of in seen.items() if of and of not in allowed and of.split(".")[0] not in allowed}
    assert not above, f"{name_of(path)} reaches above its floor: {sorted(above)}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_import_hides_inside_a_function(path: Path) -> None:
    hidden = [
        f"{path.name}:{node.lineno}"
        for scope in ast.walk(ast.parse(path.read_text()))
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(scope)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    assert not hidden


def test_there_is_no_cycle_of_imports() -> None:
    graph = {name_of(path): own_imports(path) - {name_of(path)} for path in MODULES if name_of(path) != "taskrun"}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name in done:
            return
        for target in graph.get(name, ()):
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_file_stays_short_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_owns(path: Path) -> None:
    source = path.read_text()
    assert not source.strip() or ast.get_docstring(ast.parse(source)), f"{path} has no docstring"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_function_stays_short_enough_to_be_read(path: Path) -> None:
    long = {function.name: lines for function in functions(path) if (lines := body_lines(function)) > MAX_BODY}
    assert not long


def test_nine_functions_in_ten_are_a_few_lines() -> None:
    lengths = sorted(body_lines(function) for path in MODULES for function in functions(path))
    assert lengths[len(lengths) * 9 // 10] <= USUAL_BODY


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_name_is_a_metaphor(path: Path) -> None:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    found = [name for name in (*name_of(path).split("."), *names) if words_of(name) & METAPHORS]
    assert not found, "use the term of the field"


def test_no_two_modules_have_one_name() -> None:
    paths = defaultdict[str, list[str]](list)
    for path in MODULES:
        if path.stem != "__init__" and path.parent.name not in NAMED_AFTER_SUBJECTS:
            paths[path.stem].append(name_of(path))
    assert not {stem: names for stem, names in paths.items() if len(names) > 1}
