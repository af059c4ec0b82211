"""`job_ref(name)`: a job that is known by its name, such as a command of `taskrun.toml`. It is found when it is called."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from taskrun.declarations.calls import Match
from taskrun.declarations.pipe import Into, Source, bound, check_into, gather, wait_for
from taskrun.model.codec import decode
from taskrun.model.names import check_name
from taskrun.rules.policies import Duration


class JobRef:
    """A reference to a job. Made by `job_ref`."""

    def __init__(self, name: str) -> None:
        self.name = check_name(name, "job")

    def __repr__(self) -> str:
        return f"<reference to job {self.name}>"

    @property
    def topic(self) -> str:
        """The name under which the job's successes are kept."""
        return f"job:{self.name}"

    def run(self, /, *args: Any, **fields: Any) -> Coroutine[Any, Any, Any]:
        """Triggers a child run, waits for its end, and returns its output. Durable: never started twice.

        Parameters:
            args: one mapping or model instead of `fields`.
            fields: the fields of the input.

        Raises:
            JobNotFound: there is no job of this name.
            InputInvalid: naming every bad field.
            RunFailed, RunTimeout, RunCancelled, RunDiscarded: how else it ended.
            NotBound: outside a handler; use `queue.jobs`.
        """
        here = bound(f"{self.name}.run", f"queue.jobs.{self.name}.run")
        return here.child(here.find_job(self.name), gather(f"{self.name}.run", args, fields), True)

    def start(self, /, *args: Any, **fields: Any) -> Coroutine[Any, Any, Any]:
        """Triggers a child run; returns its handle as soon as the trigger is durable. Parameters as `run`."""
        here = bound(f"{self.name}.start", f"queue.jobs.{self.name}.start")
        return here.child(here.find_job(self.name), gather(f"{self.name}.start", args, fields), False)

    def wait_for(self, match: Match = None, *, timeout: Duration | None = None) -> Coroutine[Any, Any, Any]:
        """Waits, in a handler, until a run of the job succeeds; returns its output.

        Parameters:
            match: a mapping that its input must contain, or a predicate on the input.
            timeout: how long to wait.

        Raises:
            JobNotFound: there is no job of this name.
            WaitTimeout: no such run succeeded in time.
        """
        here = bound(f"{self.name}.wait_for", f"queue.jobs.{self.name}.run")
        return wait_for(here.find_job(self.name), match, timeout)

    def into(self, fn: Into | None = None) -> Source:
        """Returns a trigger: `fn(output)` makes the other job's input, None skips it."""
        return Source("job", self, check_into(fn))

    def read(self, text: str) -> Any:
        """Returns an output from its JSON text, as plain data."""
        return decode(text)


def job_ref(name: str) -> JobRef:
    """Returns a reference to any job of the project by its name: of another file, or a command of `taskrun.toml`."""
    return JobRef(name)
