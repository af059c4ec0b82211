"""What the parser of the command line finds wrong, in the words of all other errors. Pure."""

from __future__ import annotations

import re

_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"Invalid value for [A-Z]+: (?=.)", re.DOTALL), ""),
    (re.compile(r"Invalid value for ([^:]+): (?=.)", re.DOTALL), r"\1: "),
    (re.compile(r"(\S+) is not in the range x>=(\d+)$"), r"must be \2 or more, not \1"),
    (re.compile(r"'([^']*)' is not a valid int(?:eger)?(?: range)?$"), r'"\1" is not an integer'),
    (re.compile(r"No such option: (\S+) \(Possible options: --help\)"), r"there is no option \1"),
    (re.compile(r"No such option: (\S+) \(Possible options: (.+)\)"), r"there is no option \1; did you mean \2?"),
    (re.compile(r"No such option: (\S+?)(?:\. Did you mean (\S+)\?)?$"), r"there is no option \1"),
    (re.compile(r"No such command '(.+)'"), r'no command "\1"'),
    (re.compile(r"Missing argument '(.+)'"), r"\1 is missing"),
    (re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)"), r"unexpected argument: \1"),
    (re.compile(r"Option '(\S+)' requires an argument"), r"\1 needs a value"),
    (re.compile(r"Option '(\S+)' does not take a value"), r"\1 takes no value"),
)
_QUOTED = re.compile(r"'(-{1,2}[\w-]+)'")


def reworded(message: str) -> str:
    """Returns a message of the parser as taskrun says it."""
    text = message.removesuffix(".")
    for pattern, words in _WORDS:
        text = pattern.sub(words, text, count=1)
    text = _QUOTED.sub(r"\1", text)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
