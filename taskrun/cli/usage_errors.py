"""What the parser of the command line finds wrong, in the words of all other errors. Pure."""

from __future__ import annotations

import re

_WORDS = (  # compiled when they are needed, since every command imports this
    (r"Invalid value for [A-Z]+: (?=.)", ""),
    (r"Invalid value for ([^:]+): (?=.)", r"\1: "),
    (r"(\S+) is not in the range x>=(\d+)$", r"must be \2 or more, not \1"),
    (r"'([^']*)' is not a valid int(?:eger)?(?: range)?$", r'"\1" is not an integer'),
    (r"No such option: (\S+) \(Possible options: --help\)", r"there is no option \1"),
    (r"No such option: (\S+) \(Possible options: (.+)\)", r"there is no option \1; did you mean \2?"),
    (r"No such option: (\S+?)(?:\. Did you mean (\S+)\?)?$", r"there is no option \1"),
    (r"No such command '(.+)'", r'no command "\1"'),
    (r"Missing argument '([^']+?)\.*'", r"\1 is missing"),
    (r"Missing command$", "name one of its commands"),
    (r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", r"unexpected argument: \1"),
    (r"Option '(\S+)' requires an argument", r"\1 needs a value"),
    (r"Option '(\S+)' does not take a value", r"\1 takes no value"),
    (r"'(-{1,2}[\w-]+)'", r"\1"),
)


def reworded(message: str) -> str:
    """Returns a message of the parser as taskrun says it."""
    text = message.removesuffix(".")
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
