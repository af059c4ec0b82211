"""The contract of every store: a synchronous transaction and plain verbs. A store decides nothing.

`Store.apply(fns)` runs every `fn(tx)` of a batch inside *one* transaction, in order, and returns when it is durable: this is
the group commit, and the engine's journal is its only caller. An `fn` that raises is as if it had never run: the store rolls
the batch back and runs it again without that one (so an `fn` may run more than once, touches nothing but `tx` and its own
arguments, and cannot await). A COMMIT that fails is an *unknown* outcome: `apply` raises `JournalUnavailable`, having
reopened the journal. The caller gives the same functions again, each of them a function object of its own: those that turn out to
have been written keep their answers and are not run a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from taskrun.model.clock import Clock
from taskrun.model.records import Engine, LogBlock, LogLine, PipeEvent, Run, RunFilter, Step

Answer = tuple[Any, Exception | None]  # of an `fn`: its value, or the exception that it raised


class Tx(Protocol):
    """The verbs inside one transaction. Reads see what the transaction wrote before."""

    # ---- runs
    def add_run(self, run: Run) -> Run:
        """Inserts a run; returns it with its `seq`."""
        ...

    def run(self, run_id: str) -> Run | None:
        """Returns a run by its whole id."""
        ...

    def holds(self, engine: str, run_id: str) -> bool:
        """Whether a run has not ended and is this engine's."""
        ...

    def save_run(self, run: Run) -> None:
        """Writes the changing fields of a run: those from `status` on; `output` only when it is set."""
        ...

    def runs(self, want: RunFilter) -> list[Run]:
        """Returns the runs that fit, newest first (by `seq`)."""
        ...

    def successes(self, job: str, since: float, after: int, limit: int, wait: Step) -> list[Run]:
        """Returns the succeeded runs of a job by the moment of their end, then by seq: those behind (`since`, `after`).

        Those are left out that a succeeded wait with a lower `order` of the run of `wait` has, for `job:JOB`, as its cursor.
        """
        ...

    def piece(self, run_id: str, step: str | None, field: str, start: int, size: int) -> str:
        """Returns `size` characters of a value from `start` on: `input`, `output` or `failures` of a run, or of a step of it."""
        ...

    def count_runs(self) -> dict[tuple[str, str], int]:
        """Returns the number of runs for each (job, status)."""
        ...

    def count_children(self) -> int:
        """Returns the number of runs that are children of others."""
        ...

    def oldest(self) -> float | None:
        """Returns when the oldest unfinished run was triggered."""
        ...

    def run_by_key(self, job: str, key: str) -> Run | None:
        """Returns the newest run of a job with this idempotency key."""
        ...

    def run_by_debounce(self, debounce: str) -> Run | None:
        """Returns the scheduled run that holds this debounce id."""
        ...

    def ready(self, engine: str, jobs: Sequence[str], limit: int, suspects: bool = True) -> list[Run]:
        """Returns queued, unblocked runs of `jobs`, owned by nobody or by `engine`: highest priority first, then lowest seq.

        Those with `cancel` set come before all others. Without `suspects`, others that have `crashes` are left out.
        """
        ...

    def owned(self, engine: str) -> list[Run]:
        """Returns the unfinished runs of an engine."""
        ...

    def executing(self, engine: str) -> list[str]:
        """Returns the ids of the running runs of an engine."""
        ...

    def asked(self, engine: str | None) -> list[Run]:
        """Returns the unfinished runs of an engine, or of none, that were asked to cancel or to pause."""
        ...

    def blocked_queues(self) -> list[str]:
        """Returns the queues in which queued runs are blocked."""
        ...

    def due_runs(self, engine: str, now: float, limit: int) -> list[Run]:
        """Returns unfinished runs of nobody or of `engine` that are due at `now`, earliest first.

        Due by their `wake_at`, while scheduled, or by their `deadline`.
        """
        ...

    def placed(self, lane: str) -> int:
        """Returns how many runs hold a place of a lane."""
        ...

    def holders(self, lane: str) -> list[Run]:
        """Returns the runs that hold a place of a lane."""
        ...

    def blocked(self, queue: str, limit: int, jobs: Sequence[str] | None = None) -> list[Run]:
        """Returns queued runs that are blocked in a queue: highest priority first, then lowest seq; only those of `jobs`."""
        ...

    def drop_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes runs with their steps and logs."""
        ...

    # ---- steps
    def put_step(self, step: Step) -> None:
        """Inserts or replaces a step of a run that is there."""
        ...

    def step(self, run_id: str, key: str) -> Step | None:
        """Returns one step."""
        ...

    def steps(self, run_id: str) -> list[Step]:
        """Returns the steps of a run in the order they were first put."""
        ...

    def step_page(self, run_id: str, after: int, limit: int) -> list[tuple[int, Step]]:
        """Returns brief steps of a run with their numbers, those above `after`. A negative `limit` means the last `-limit`."""
        ...

    def count_steps(self, run_id: str, most: int) -> tuple[int, int]:
        """Returns how many steps a run has, and how many of them run: each at most `most`, -1 for no limit."""
        ...

    def open_step(self, run_id: str) -> Step | None:
        """Returns the running step of a run that was put last, brief."""
        ...

    def failed_step(self, run_id: str) -> Step | None:
        """Returns the failed step of a run that was put last, brief."""
        ...

    def open_steps(self, run_id: str) -> list[Step]:
        """Returns the running steps of a run, in the order they were first put."""
        ...

    def drop_steps(self, run_id: str, keys: Sequence[str]) -> None:
        """Deletes steps of a run."""
        ...

    def due_steps(self, engine: str, now: float, limit: int) -> list[Step]:
        """Returns running steps of kind sleep, wait or in backoff whose `wake_at` is at or before `now`, earliest first.

        Only of runs that nobody or `engine` owns.
        """
        ...

    def waiting_steps(self, topic: str, limit: int | None = None) -> list[Step]:
        """Returns the running steps that wait for a topic (a pipe, a job, a run), in the order they were put."""
        ...

    def next_due(self, engine: str) -> float | None:
        """Returns the earliest `wake_at` or `deadline` that `due_runs` or `due_steps` would return at its time."""
        ...

    # ---- events
    def add_event(self, event: PipeEvent) -> PipeEvent:
        """Inserts an event; returns it with its `seq`."""
        ...

    def events(self, topic: str, since: float, after: int, limit: int, wait: Step | None = None) -> list[PipeEvent]:
        """Returns events of a topic sent at or after `since` with a seq above `after`, oldest first.

        Those are left out that a succeeded wait with a lower `order` of the run of `wait` has, for the topic or `TOPIC#…`, as
        its cursor.
        """
        ...

    def drop_events(self, before: float) -> None:
        """Deletes events sent before a moment."""
        ...

    # ---- logs
    def add_logs(self, lines: Iterable[LogLine]) -> None:
        """Inserts log lines; a (run, seq) that is there already is left as it is."""
        ...

    def logs(self, run_id: str, after: int, limit: int) -> list[LogLine]:
        """Returns log lines with a seq above `after`, in order. A negative `limit` means the last `-limit` lines."""
        ...

    def log_blocks(self, run_id: str, width: int) -> list[LogBlock]:
        """Measures a run's log in stretches of `width` seqs, in order; those without a line are left out."""
        ...

    def drop_logs(self, run_id: str, first: int, last: int) -> None:
        """Deletes log lines of a run by their seqs, both included."""
        ...

    def last_log(self, run_id: str) -> int:
        """Returns the highest log seq of a run, 0 when there is none."""
        ...

    # ---- engines and small facts
    def put_engine(self, engine: Engine) -> None:
        """Inserts or replaces an engine."""
        ...

    def engine(self, engine_id: str) -> Engine | None:
        """Returns one engine."""
        ...

    def engines(self, run_out: float | None = None) -> list[Engine]:
        """Returns the engines; only those whose lease ended before `run_out`."""
        ...

    def drop_engine(self, engine_id: str) -> None:
        """Deletes an engine."""
        ...

    def get(self, key: str) -> str | None:
        """Returns a small fact as JSON text."""
        ...

    def put(self, key: str, value: str | None) -> None:
        """Writes a small fact; None deletes it."""
        ...

    def facts(self, prefix: str) -> dict[str, str]:
        """Returns the small facts whose key begins with `prefix`."""
        ...


class Store(Protocol):
    """A journal's storage. Synchronous and safe to use from several threads; one object may serve several engines."""

    def open(self) -> None:
        """Opens it, migrating an older journal. Counted: the n-th `open` only adds a user.

        Raises:
            JournalNewer, JournalDamaged, JournalLocked, JournalError: each says what helps.
        """
        ...

    def close(self) -> None:
        """Closes it when its last user closes."""
        ...

    def apply(self, fns: Sequence[Callable[[Tx], Any]], guard: Callable[[Tx], None] | None = None) -> list[Answer]:
        """Runs `fns` in one durable transaction; returns for each its value, or the exception that it raised.

        `guard` runs first; if it raises, nothing of the batch is run and `apply` raises the same.

        Raises:
            JournalUnavailable: nothing is known of the outcome (a failed COMMIT), or nothing could be written (disk full).
        """
        ...

    @property
    def written(self) -> int:
        """How many batches of this object have changed anything, so that whoever only looked need tell nobody."""
        ...

    def outside(self) -> object:
        """Returns a token that differs once another connection has written. Cheap, made to be polled."""
        ...

    @property
    def address(self) -> str | None:
        """Where the journal is; the same for every object that keeps it. None where no other one can."""
        ...

    @property
    def pace(self) -> float:
        """Seconds between two looks at `outside`."""
        ...

    def follow(self, engine: str, jobs: Sequence[str], call: Callable[[], None], ready: Callable[[], None]) -> None:
        """Calls `call`, from any thread, once another connection has written what concerns an engine: its runs, or its jobs.

        Calls `ready` instead where all there is to it is a ready run of one of the jobs that no engine has.

        Said again with other jobs, it replaces what was said before. Where a store hears of nothing, `outside` is all there is.
        """
        ...

    def unfollow(self, call: Callable[[], None]) -> None:
        """Calls `call` no more."""
        ...

    async def enlist(self, connection: Any, key: str, value: str, job: str) -> None:
        """Writes a small fact in the transaction of a caller's connection, of which engines that have a job hear when it commits.

        Raises:
            DefinitionError: the store shares no transactions.
        """
        ...

    @property
    def clock(self) -> Clock | None:
        """The clock that decides for all machines which share it; None for this machine's own."""
        ...

    @property
    def instant(self) -> bool:
        """Whether `apply` never blocks, so that it needs no thread."""
        ...

    @property
    def shared(self) -> bool:
        """Whether another process may write to it at the same time, so that leases and polling are needed."""
        ...

    @property
    def place(self) -> str | None:
        """The path of the journal, where it has one; the engines' liveness locks stand beside it."""
        ...
