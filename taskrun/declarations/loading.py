"""Loads a project's job files, each once and under one name, whatever it is imported as. Called by `registry.discover`.

`jobs/music.py` is the module `jobs.music`, with or without an `__init__.py`. Its folder is importable too: `import audio`
beside it gives `jobs.audio`, and not a second copy. What is installed goes before such a neighbour, as at the end of
`sys.path`. Files of the project are always compiled anew, since cached bytecode can miss an edit within one second.

A file that cannot be loaded is replaced by its last good source, if there is one, while all others are loaded as they are.
"""

from __future__ import annotations

import importlib
import linecache
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import decode_source, find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from msgspec.structs import replace

APART = "taskrun_project"  # holds modules whose own names are taken, such as those of a folder called `email`


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a file.

    Parameters:
        loading: the file that could not be loaded for it, or the name of its module.
        kept: its last good source was loaded instead.
    """

    file: str
    line: int
    text: str
    loading: str = ""
    kept: bool = False


class Files:
    """The job files of one project.

    Parameters:
        root: the project's folder, which is put on `sys.path`.
        last_good: the sources of files as they were last loaded without an error, by path.
    """

    _last: Files | None = None

    def __init__(self, root: Path, last_good: Mapping[str, str]) -> None:
        self.root = root.resolve()
        self.sources: dict[str, str] = {}  # of what was loaded without an error, by path
        self._last_good = last_good
        self.problems: list[Problem] = []
        self.tried: list[Path] = []
        self._folders: set[Path] = set()
        self._bases: dict[Path, str] = {}  # folder above the top package → prefix of the names of what is in it
        self._added: list[str] = []  # entries of sys.path
        self._before: set[str] = set()
        self._names: set[str] = set()  # modules of the project that were loaded
        self._finder = _Finder(self)

    def __enter__(self) -> Files:
        """Takes the place of a project that was loaded before in this process."""
        if Files._last is not None:
            Files._last._forget()
        Files._last = self
        self._before = set(sys.modules)
        self._add_path(self.root, 0)
        sys.meta_path.insert(0, self._finder)
        importlib.invalidate_caches()
        return self

    def __exit__(self, *error: object) -> None:
        """Remembers what was loaded. The finder stays: handlers may import neighbours while they run."""
        self._names = {name for name in set(sys.modules) - self._before if self._is_own(sys.modules[name])}

    def _forget(self) -> None:
        for name in self._names:
            sys.modules.pop(name, None)
        sys.meta_path.remove(self._finder)
        for entry in self._added:
            if entry in sys.path:
                sys.path.remove(entry)

    # ---- loading

    def load(self, entries: Iterable[str]) -> list[ModuleType]:
        """Loads modules, packages, folders, files and globs; what fails becomes a problem."""
        modules = [module for entry in entries for module in self._load_entry(entry)]
        return list({id(module): module for module in modules}.values())

    def loaded(self) -> list[Path]:
        """Returns the files of the project that make up what was loaded, broken ones and helpers included."""
        files = {_file(module) for name in self._names if (module := sys.modules.get(name)) is not None}
        return sorted({file for file in files if file is not None} | set(self.tried))

    def _load_entry(self, entry: str) -> Iterator[ModuleType]:
        try:
            yield from self._load_found(entry)
        except OSError as error:  # of a folder; what is wrong with a file, loading it says
            self._complain(f"{error.filename}: {error.strerror}")

    def _load_found(self, entry: str) -> Iterator[ModuleType]:
        path = self.root / entry
        if path.is_dir() or path.is_file():
            yield from self._load_files(_sources(path))
        elif any(sign in entry for sign in "*?["):
            top = Path(path.anchor)
            found = sorted(top.glob(str(path.relative_to(top))))
            if not found:
                self._complain(f'no file matches "{entry}"')
            yield from self._load_files(source for each in found for source in _sources(each))
        elif self._is_module(entry):
            yield from self._load_module(entry)
        else:
            self._complain(f'"{entry}" is not a module, package, folder or file in {self.root}')

    def _load_files(self, files: Iterable[Path]) -> Iterator[ModuleType]:
        for found in files:
            file = found.resolve() if found.is_file() else found
            if wrong := _wrong_with(file):
                shown = str(file).encode("utf-8", "backslashreplace").decode()
                self.problems.append(Problem(shown, 0, wrong, shown))
                continue
            self.tried.append(file)
            self._add_folder(file.parent)
            name = self.name_of(file)
            if name is not None and (module := self._import(name, str(file))) is not None:
                yield module

    def _load_module(self, name: str) -> Iterator[ModuleType]:
        module = self._import(name, name)
        if module is None:
            return
        yield module
        for folder in getattr(module, "__path__", ()):
            top = Path(folder).resolve()
            for found in _sources(top):
                real = found.resolve() if found.is_file() else found
                file = real if real.is_relative_to(top) else found
                if (inner := self._import(".".join((name, *_parts(file, top))), str(file))) is not None:
                    yield inner

    def _import(self, name: str, what: str) -> ModuleType | None:
        try:
            return importlib.import_module(name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: user code runs here
            self.problems.append(self._problem(error, what))
            return None

    def _is_module(self, name: str) -> bool:
        try:
            return find_spec(name) is not None
        except ModuleNotFoundError:
            return False
        except BaseException:  # the package around it is broken, which loading it will say
            return True

    # ---- names

    def name_of(self, file: Path) -> str | None:
        """Returns the one name of a file's module, None if it belongs to no folder of jobs."""
        folder = next((folder for folder in (file.parent, *file.parent.parents) if folder in self._folders), None)
        if folder is None:
            return None
        base = self.root if file.is_relative_to(self.root) else folder.parent
        parts = _parts(file, base)
        if not parts:
            return None
        return self._prefix(base, parts[0]) + ".".join(parts)

    def _prefix(self, base: Path, top: str) -> str:
        """Makes sure that the top of a name is ours; returns what has to stand before it if it cannot be."""
        place = base / top
        if place not in self._bases:
            self._bases[place] = self._claim(base, place)
        return self._bases[place]

    def _claim(self, base: Path, place: Path) -> str:
        top = sys.modules.get(place.name)
        if top is not None and (_is_at(top, place)):
            return ""
        if top is None and place.name not in sys.stdlib_module_names:
            if place.is_dir() and not (place / "__init__.py").exists():
                _make_package(place.name, place)  # else an installed package of that name would go before it
            return ""
        number = len([name for name in sys.modules if name.startswith(APART) and "." not in name])
        _make_package(f"{APART}{number or ''}", base)
        return f"{APART}{number or ''}."

    def _add_folder(self, folder: Path) -> None:
        if folder not in self._folders:
            self._folders.add(folder)
            self._add_path(folder, len(sys.path))

    def _add_path(self, folder: Path, at: int) -> None:
        if str(folder) not in sys.path:
            sys.path.insert(at, str(folder))
            self._added.append(str(folder))

    def owns(self, file: Path) -> bool:
        """Whether a file is the project's own code."""
        if str(file).startswith(_PACKAGE) or {"site-packages", "dist-packages"}.intersection(file.parts):
            return False
        return file.is_relative_to(self.root) or file.parent in self._folders

    def reaches(self, path: Sequence[str]) -> bool:
        """Whether a package's search path leads into the project."""
        return any(Path(entry).is_relative_to(top) for entry in path for top in (self.root, *self._folders))

    def _is_own(self, module: ModuleType) -> bool:
        file = _file(module)
        return self.owns(file) if file is not None else any(place in self._folders for place in _places(module))

    # ---- files that cannot be loaded

    def execute(self, module: ModuleType, file: str, source: bytes) -> None:
        """Executes a file as a module: its last good source where this one fails."""
        empty = set(vars(module))
        try:
            self._execute(module, file, source)
        except BaseException as error:  # SystemExit too
            if isinstance(error, KeyboardInterrupt) or not self._restore(module, file, empty):
                raise
            self.problems.append(replace(self._problem(error, file), kept=True))

    def fall_back(self, problem: Problem) -> bool:
        """Puts the last good source of a file that was loaded in its place, since its jobs cannot work; whether there is one."""
        modules = [sys.modules[name] for name in set(sys.modules) - self._before]
        module = next((one for one in modules if _file(one) == Path(problem.file)), None)
        if module is None or self.sources.get(problem.file) == self._last_good.get(problem.file):
            return False
        kept = self._restore(module, problem.file, {name for name in vars(module) if name.startswith("__")})
        if kept:
            self.problems.append(replace(problem, kept=True))
        return kept

    def _execute(self, module: ModuleType, file: str, source: str | bytes) -> None:
        exec(compile(source, file, "exec", dont_inherit=True), vars(module))
        self.sources[file] = source if isinstance(source, str) else decode_source(source)

    def _restore(self, module: ModuleType, file: str, empty: set[str]) -> bool:
        """Executes a file's last good source.

        Parameters:
            empty: the names that a module has before it is executed.
        """
        source = self._last_good.get(file)
        if source is None:
            return False
        for name in set(vars(module)) - empty:
            del vars(module)[name]
        linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file  # for lines of tracebacks
        try:
            self._execute(module, file, source)
        except BaseException:  # for example since a file that it imports has changed
            return False
        return True

    # ---- problems

    def _complain(self, text: str) -> None:
        self.problems.append(Problem("taskrun.toml", 0, f"jobs: {text}"))

    def _problem(self, error: BaseException, what: str) -> Problem:
        file, line = self._where(error, what)
        text = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}".rstrip(": ")
        return Problem(file, line, text if file == what else f"{text} (while loading {what})", what)

    def _where(self, error: BaseException, what: str) -> tuple[str, int]:
        """Returns the innermost place in the project's own code."""
        if isinstance(error, SyntaxError) and error.filename:
            return error.filename, error.lineno or 0
        frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
        own = [place for place in frames if place[0] == what or self.owns(Path(place[0]))]
        return own[-1] if own else (what, 0)


_PACKAGE = str(Path(__file__).parents[1]) + "/"


def _sources(path: Path, seen: set[Path] | None = None) -> Iterator[Path]:
    """Returns the Python files of a folder and the folders in it, or the file itself.

    Links that lead nowhere and the like are returned, too, if they have the name of a Python file. Of folders that may not be
    read only the outermost is an error.

    Parameters:
        seen: folders that were looked into, since links may lead back to them.
    """
    seen = set() if seen is None else seen
    if not path.is_dir():
        if path.suffix == ".py" and os.path.lexists(path):  # an editor may have removed it meanwhile
            yield path
    elif (real := path.resolve()) not in seen:
        seen.add(real)
        for each in sorted(path.iterdir()):
            hidden = each.name.startswith(("_", ".")) and each.name != "__init__.py"
            with suppress(OSError):
                if not hidden and not (each / "pyvenv.cfg").exists():
                    yield from _sources(each, seen)


def _wrong_with(file: Path) -> str:
    """Returns why a file cannot even be tried; empty if it can."""
    if not file.is_file():
        return "is a link that leads nowhere" if file.is_symlink() else "is not a regular file"
    try:
        str(file).encode()
    except UnicodeEncodeError:  # no message between processes could name it
        return "has a name that is not UTF-8"
    return ""


def _parts(file: Path, base: Path) -> tuple[str, ...]:
    """Returns the parts of the name that a file has as a module below a folder."""
    parts = file.relative_to(base).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _file(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) else None


def _places(module: ModuleType) -> list[Path]:
    """Returns the folders that a package stands for."""
    path = getattr(module, "__path__", None)
    return [Path(entry) for entry in path or () if isinstance(entry, str)]


def _is_at(module: ModuleType, place: Path) -> bool:
    return place in _places(module) or _file(module) == place.with_suffix(".py")


def _make_package(name: str, folder: Path) -> None:
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = module_from_spec(spec)


# ---- importing


class _Finder:
    """Finds the project's modules where `sys.path` has them, and gives each its one name."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns how to load a module of the project, None for all others."""
        if path is not None and not self._files.reaches(path):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.origin is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        file = Path(spec.origin)
        known_as = self._files.name_of(file)
        if known_as is not None and known_as != name:
            return ModuleSpec(name, _Alias(known_as), origin=spec.origin)  # type: ignore[arg-type]  # it does all a loader must
        if known_as is not None or self._files.owns(file):
            spec.loader = _Fresh(self._files, name, spec.origin)
            return spec
        return None


class _Alias:
    """Gives a module that is known under another name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """An empty one, to be replaced."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Puts the real one in its place."""
        sys.modules[module.__name__] = importlib.import_module(self._name)


class _Fresh(SourceFileLoader):
    """Compiles a file whatever bytecode there is, and leaves none."""

    def __init__(self, files: Files, name: str, path: str) -> None:
        super().__init__(name, path)
        self._files = files

    def exec_module(self, module: ModuleType) -> None:
        """Executes the file, or its last good source."""
        self._files.execute(module, self.path, self.get_data(self.path))

    def path_stats(self, path: Any) -> Any:
        """Refuses, which is how importlib is told to go without bytecode."""
        raise OSError("not to be cached")
