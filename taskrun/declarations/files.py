"""`files(pattern)`: files that are put into a folder, or changed there, as a trigger of a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskrun.declarations.pipe import Into, Source, check_into
from taskrun.model.codec import decode
from taskrun.model.durations import seconds, shown
from taskrun.model.errors import DefinitionError
from taskrun.model.files_config import EVENT
from taskrun.rules.policies import Duration

SCHEMA = {  # how an event looks, as a JSON schema
    "properties": {name: {"type": kind} for name, kind in EVENT.items()},
    "required": [*EVENT],
    "additionalProperties": False,
}


class Files:
    """Files that start a job. Made by `files`."""

    def __init__(self, patterns: tuple[str, ...], settle: float, existing: bool, poll: float | None) -> None:
        self.patterns = patterns
        self.settle = settle
        self.existing = existing
        self.poll = poll

    def __repr__(self) -> str:
        return f"<files {self.name}>"

    @property
    def name(self) -> str:
        """The patterns."""
        return " ".join(self.patterns)

    @property
    def topic(self) -> str:
        """The name under which screens show it."""
        return f"files:{self.name}"

    def into(self, fn: Into | None = None) -> Source:
        """Returns a trigger: `fn(event)` makes the job's input of `path name size modified change`, None skips the file."""
        return Source("files", self, check_into(fn))

    def read(self, text: str) -> Any:
        """Returns an event from its JSON text."""
        return decode(text)

    def describe(self) -> dict[str, Any]:
        """Returns what the core watches, as JSON."""
        return {"patterns": self.patterns, "settle": self.settle, "existing": self.existing, "poll": self.poll}


def files(
    pattern: str | Sequence[str], *, settle: Duration = "1s", existing: bool = False, poll: Duration | None = None
) -> Files:
    """Makes files a trigger: each version of a file that matches starts one run.

    Parameters:
        pattern: such as `inbox/**/*.mp3`, from the project's root; or several.
        settle: a file has been unchanged for this long when it starts a run, so that none is half-written.
        existing: whether files start runs that are there when the trigger is seen for the first time.
        poll: look every so often, where the kernel tells nothing of changes, as of network folders.

    Raises:
        DefinitionError: the pattern is empty, or an option cannot be.
    """
    patterns = (pattern,) if isinstance(pattern, str) else tuple(pattern)
    for one in patterns:
        if not isinstance(one, str) or not one.strip("/") or "\0" in one:
            raise DefinitionError(f"files: {shown(one)} is not a pattern of files")
    if not patterns:
        raise DefinitionError("files: name a pattern, as in inbox/*.mp3")
    every = None if poll is None else seconds(poll, "poll of files")
    if every == 0:
        raise DefinitionError("files: poll must be more than 0")
    return Files(patterns, seconds(settle, "settle of files"), bool(existing), every)
