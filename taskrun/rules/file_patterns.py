"""Which files a pattern means: `inbox/**/*.mp3`. Pure: it only looks at names.

As for a shell, `*` does not match a name that begins with a dot. Names of downloads under way and of editors' copies are left
out as well, unless the pattern ends in the same way.
"""

from __future__ import annotations

import os
import re
from fnmatch import translate
from functools import lru_cache

UNFINISHED = (".part", ".tmp", ".crdownload", ".swp", "~")  # ends of names that are not the ones to come
_WILD = re.compile(r"[*?\[]")


class FilePattern:
    """A pattern of paths.

    Parameters:
        text: `**` stands for any folders, `*`, `?` and `[…]` for parts of one name.
        root: the absolute folder from which a relative one goes.
    """

    def __init__(self, text: str, root: str) -> None:
        self.text = text
        text = os.path.expanduser(text) if text.startswith("~/") else text  # noqa: PTH111
        fixed, parts = [], [part for part in text.split("/") if part not in ("", ".")]
        while len(parts) > 1 and not _WILD.search(parts[0]):
            fixed.append(parts.pop(0))
        top = "/" if text.startswith("/") else root
        self.folder = os.path.normpath(os.path.join(top, *fixed))  # noqa: PTH118 - names may be no UTF-8
        self._parts = tuple(parts)

    @property
    def deep(self) -> bool:
        """Whether files in folders of `folder` may match."""
        return len(self._parts) > 1 or self._parts == ("**",)

    def matches(self, path: str) -> bool:
        """Whether an absolute path is one of a file that is meant."""
        inner = self._below(path)
        return inner is not None and _match(inner, self._parts) and not self._is_unfinished(inner[-1])

    def may_have(self, folder: str) -> bool:
        """Whether files that are meant may be in an absolute folder, or deeper in it."""
        inner = self._below(folder)
        return folder == self.folder or (inner is not None and _leads(inner, self._parts))

    def _below(self, path: str) -> tuple[str, ...] | None:
        top = self.folder if self.folder.endswith("/") else f"{self.folder}/"
        return tuple(path[len(top) :].split("/")) if path.startswith(top) and len(path) > len(top) else None

    def _is_unfinished(self, name: str) -> bool:
        return any(name.endswith(end) and not self._parts[-1].endswith(end) for end in UNFINISHED)


def _match(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return _match(names, parts[1:]) or (bool(names) and names[0][:1] != "." and _match(names[1:], parts))
    return bool(names) and _is(names[0], parts[0]) and _match(names[1:], parts[1:])


def _leads(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether folders of these names lead to what the parts of a pattern mean."""
    if not names:
        return bool(parts)
    if not parts:
        return False
    if parts[0] == "**":
        return _leads(names, parts[1:]) or (names[0][:1] != "." and _leads(names[1:], parts))
    return len(parts) > 1 and _is(names[0], parts[0]) and _leads(names[1:], parts[1:])


def _is(name: str, part: str) -> bool:
    return (name[:1] != "." or part[:1] == ".") and _compiled(part).match(name) is not None


@lru_cache(maxsize=1024)
def _compiled(part: str) -> re.Pattern[str]:
    return re.compile(translate(part))
