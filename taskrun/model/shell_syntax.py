"""Where a field may stand in a string for the shell: only where its quoted value is a word and nothing else.

Within quotes, comments, here-documents, backquotes, `${…}` and arithmetic the shell reads quotes in another way, so that a value
could end them and be executed. This follows the string as a POSIX shell does; where shells differ, fields after that place are
refused, too.
"""

from __future__ import annotations

import re

from taskrun.model.templates import Placeholder, Template

_BARE = "write it bare, it is quoted by itself"
_REFUSED = {  # by what a field stands in
    "'": f"stands inside quotes; {_BARE}",
    '"': f"stands inside quotes; {_BARE}",
    "`": "stands inside backquotes; write $(…) instead",
    "${": "stands inside ${…}, where its quotes do not hold; write it outside",
    "((": (_ARITHMETIC := "stands inside arithmetic, where its quotes do not hold; write it outside"),
    "$((": _ARITHMETIC,
    "#": "stands in a comment",
}
_DOCUMENT = "stands in or behind a here-document, where its quotes do not hold; give it as an argument"
_ENDS = {"`": "`", "${": "}", "((": "))", "$((": "))"}  # of what no field may stand in
_AT_WORD = r"[ \t\n;&|()<>]\Z"  # other blanks, as that of CRLF, are letters of a word
# What makes a parenthesis behind it a part of a word in some shells: f() a=(…) <(…)
_GLUED = r"[^ \t\n;&|()]\Z"
_GLUED_END = "\0"  # in `before`, for the end of such a parenthesis
_CASE = r"(\\\n)?".join("case") + r"\b"
_BEFORE = 40  # characters that are kept of what was read


def check_fields(template: Template) -> None:
    """Checks that each field stands where it is a word of the shell.

    Raises:
        ValueError: one does not; begins with its name.
    """
    reader = _Reader()
    for part in template:
        if isinstance(part, str):
            reader.read(part)
        else:
            reader.meet(part)


class _Reader:
    """Follows a string for the shell; `stack` is what the place that it has reached is in, from the outside."""

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._before = "\n"  # the end of what was read so far; of what stands for a letter, "x"
        self._escaping = False  # whether a backslash stands right before
        self._unclear = ""  # why no field may follow any more
        self._document = False  # whether the next line begins a here-document
        self._depth = 0  # of the stack where that was announced

    def meet(self, field: Placeholder) -> None:
        """Checks that a field may stand here."""
        name = f"{{{field.field}}}"
        wrong = next((_REFUSED[one] for one in reversed(self._stack) if one in _REFUSED and one != '"'), "")
        if self._stack and self._stack[-1] == '"':
            wrong = wrong or _REFUSED['"']
        if self._before.endswith("$"):
            wrong = f"stands after a $; write {name} for the field, ${{{name}}} for a variable of the shell"
        if self._escaping:
            wrong = "stands after a backslash, which would undo its quotes"
        far = self._document and not self._before.strip(" \t")
        if far or re.search(r"(?<!<)<<-?[ \t]*\Z", self._before):
            wrong = "cannot be the end of a here-document"
        if self._document and len(self._stack) > self._depth:  # perhaps in that end, where quotes are read otherwise
            wrong = wrong or _DOCUMENT
        if wrong or self._unclear:
            raise ValueError(f"{name} {wrong or self._unclear}")
        self._before += "x"  # of a word

    def read(self, text: str) -> None:
        """Follows plain text."""
        at = 0
        while at < len(text):
            depth, inside = len(self._stack), self._stack[-1] if self._stack else ""
            length = self._step(text, at)
            seen = text[at : at + length]
            if length == 2 and seen[0] == "\\":
                seen = "" if seen == "\\\n" else "x"
            elif len(self._stack) < depth and inside.startswith("$"):
                seen = "x"  # of the word that goes on behind it
            elif len(self._stack) < depth and inside == "glued (":
                seen = _GLUED_END
            self._before = (self._before + seen)[-_BEFORE:]
            at += length

    def _step(self, text: str, at: int) -> int:
        """Takes what stands at a place; returns its length."""
        inside, rest, letter = self._stack[-1] if self._stack else "", text[at : at + 4], text[at]
        if letter == "\n" and self._document:
            self._unclear = _DOCUMENT
        if inside == "#" and letter != "\n":
            return 1
        if inside == "'":
            return self._end("'", letter)
        if letter == "\\":
            self._escaping = at + 1 == len(text)
            if text.startswith("\n", at + 1) and self._before[-1] in "$<(":
                self._unclear = "stands behind a line that ends within an operator; write that on one line"
            return 2
        if inside == '"':
            return self._end('"', letter) if letter == '"' else self._expansion(rest)
        if inside in _ENDS:
            return self._unquoted(inside, rest)
        return self._code(rest, text[at:])

    def _end(self, mark: str, letter: str) -> int:
        if letter == mark:
            self._stack.pop()
        return 1

    def _expansion(self, rest: str) -> int:
        """Begins what a `$` or a backquote begins."""
        for opening in ("$((", "$(", "${", "`"):
            if rest.startswith(opening):
                self._stack.append(opening)
                return len(opening)
        return 1

    def _unquoted(self, inside: str, rest: str) -> int:
        """Within what no field may stand in: only its end counts, and quotes there are read in several ways."""
        if rest.startswith(_ENDS[inside]):
            self._stack.pop()
            return len(_ENDS[inside])
        if rest[0] in "'\"":
            self._unclear = "stands behind quotes within backquotes, ${…} or arithmetic; write it before them"
        if inside.endswith("((") and rest[0] == "(":
            self._stack.append("(")
            return 1
        return 1 if rest[0] == "`" else self._expansion(rest)

    def _code(self, rest: str, text: str) -> int:
        if rest.startswith(("$'", '$"', "$[")):
            self._unclear = f"stands behind {rest[:2]}, which not every shell reads alike; write it before that"
            return 1
        if rest[0] == "\n":
            if self._stack[-1:] == ["#"]:
                self._stack.pop()
        elif rest[0] == "#" and self._before.endswith(_GLUED_END):
            self._unclear = "stands behind )#, which not every shell reads alike; write a space between them"
        elif rest[0] in "'\"" or (rest[0] == "#" and re.search(_AT_WORD, self._before)):
            self._stack.append(rest[0])
        elif rest.startswith("<<") and not rest.startswith("<<<"):
            self._document, self._depth = True, len(self._stack)
            return 2
        elif rest.startswith("<<<"):
            return 3
        elif rest.startswith("(("):
            if re.search(_GLUED, self._before):
                self._unclear = (
                    "stands behind (( within a word, which not every shell reads alike; write it before that"
                )
            self._stack.append("((")
            return 2
        elif rest[0] == "(":
            self._stack.append("glued (" if re.search(_GLUED, self._before) else "(")
        elif rest[0] == ")" and self._stack:
            self._stack.pop()
        elif self._stack and re.search(_AT_WORD, self._before) and re.match(_CASE, text):
            self._unclear = "stands behind a case within parentheses; write it before that"
        else:
            return self._expansion(rest)
        return 1
