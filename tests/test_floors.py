"""The floors of the house: nothing imports upward, siblings do not import each other, no cycles, no hidden imports."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

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
PATHS = sorted(ROOT.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path.read_text() for path in PATHS}
MODULES = {name: ast.parse(source) for name, source in SOURCES.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "relative imports hide which floor they reach"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    return (set(imports(MODULES[module])) & MODULES.keys()) - {"taskrun"}


def functions(module: str) -> list[Function]:
    return [node for node in ast.walk(MODULES[module]) if isinstance(node, Function)]


def floor_of(module: str) -> str | None:
    """Returns the innermost floor that a module is on."""
    parts = module.split(".")[1:]
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in FLOORS), None)


def above(module: str) -> set[str]:
    """Returns what a module imports from floors that it may not see."""
    floor = floor_of(module)
    if floor is None:
        return set()  # the package's faces: they hand names on
    allowed = FLOORS[floor] | {floor}
    seen = {name: floor_of(name) for name in own_imports(module)}
    return {name for name, of in seen.items() if of and of not in allowed and of.split(".")[0] not in allowed}


def test_a_module_sees_only_its_own_floor_and_those_below() -> None:
    assert {module: found for module in MODULES if (found := above(module))} == {}


def test_no_import_hides_inside_a_function() -> None:
    hidden = [
        f"{module}:{node.lineno}"
        for module in MODULES
        for function in functions(module)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not hidden


def test_there_is_no_cycle_of_imports() -> None:
    graph = {module: own_imports(module) - {module} for module in MODULES if module != "taskrun"}
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


def test_a_file_stays_short_enough_to_be_read() -> None:
    lines = {module: len(source.splitlines()) for module, source in SOURCES.items()}
    assert {module: count for module, count in lines.items() if count > MAX_LINES} == {}


def test_a_module_says_what_it_owns() -> None:
    assert not [name for name, tree in MODULES.items() if tree.body and not ast.get_docstring(tree)]


def body_lines(function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_stay_short_enough_to_be_read() -> None:
    lengths = sorted((body_lines(each), module, each.name) for module in MODULES for each in functions(module))
    assert not [found for found in lengths if found[0] > MAX_BODY]
    assert lengths[len(lengths) * 9 // 10][0] <= USUAL_BODY


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def test_no_name_is_a_metaphor() -> None:
    kinds = ast.ClassDef | Function
    names = [(module, part) for module in MODULES for part in module.split(".")]
    names += [(name, node.name) for name, tree in MODULES.items() for node in ast.walk(tree) if isinstance(node, kinds)]
    assert not [(module, name) for module, name in names if words_of(name) & METAPHORS], "use the term of the field"


def test_no_two_modules_have_one_name() -> None:
    paths = defaultdict[str, list[str]](list)
    for path in PATHS:
        if path.stem != "__init__" and path.parent.name not in NAMED_AFTER_SUBJECTS:
            paths[path.stem].append(name_of(path))
    assert not {stem: names for stem, names in paths.items() if len(names) > 1}
