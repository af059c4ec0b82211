"""`taskrun list`, also `ps`: the runs, once or live."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import typer
from msgspec.structs import replace

from taskrun.cli.backend.documents import Completer, print_document
from taskrun.cli.backend.held_reasons import HELD, explained
from taskrun.cli.backend.paging import all_runs, each_run
from taskrun.cli.backend.resumable_streams import change_stream
from taskrun.cli.common_options import COMMON, text_option
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import cell, to_json
from taskrun.cli.screens.live import Snapshot, Sticky, drawing, pause_after
from taskrun.cli.screens.look import MARKS, stacked, wrapped
from taskrun.cli.screens.phrases import ENDED, is_delivered, short
from taskrun.cli.screens.runs import arranged, folded, once_each, runs_footer, runs_table, runs_tsv, totals
from taskrun.cli.session import Backend, KeptReader, Session
from taskrun.model import durations
from taskrun.model.errors import TaskrunError
from taskrun.model.records import UNFINISHED, Status
from taskrun.model.tags import wanted_tags

WORDS = {found.word: state for state, found in MARKS.items() if state in set(Status)}  # `done` is `succeeded`
WORDS |= {
    "interrupted": Status.RUNNING,
    "retry": Status.SCHEDULED,
}  # words of the screens for two states that are not statuses
LIMIT = 20
ACTIVE = 200  # active runs that are looked for beyond the newest ones
BESIDE = 3  # lines of a live table beside its runs: the head, the totals, and where the cursor is
FRESH, SOON = 10, 3  # frames between two requests for what no change tells: as a rule, and once a run has changed

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Listing(msgspec.Struct, frozen=True):
    """What was typed."""

    job: str = ""
    statuses: tuple[str, ...] = ()
    since: float | None = None
    limit: int | None = None  # None: all, or of a live table as many as the screen has room for
    folds: bool = False  # whether children, and many queued runs, are left out: nothing was asked for in particular
    json: bool = False
    tags: tuple[tuple[str, str | None], ...] = ()
    parent: str = ""  # whose children are meant: as it was typed, until `found_parent`

    @property
    def counted(self) -> bool:
        """Whether the counts of all runs, or of those of the job, say something about those that are listed."""
        return not self.statuses and self.since is None and not self.tags and not self.parent

    def wanted(self, now: float) -> dict[str, Any]:
        """Returns it as the parameters of a request."""
        since = None if self.since is None else now - self.since
        found = {"job": self.job or None, "status": list(self.statuses) or None, "since": since, "limit": self.limit}
        return {**found, "tags": self.tags, "parent": self.parent or None}

    def leaves_out(self, run: dict[str, Any]) -> bool:
        """Whether a run is no news: a notification that was delivered, unless they were asked for."""
        return self.folds and is_delivered(run)

    def takes(self, run: dict[str, Any]) -> bool:
        """Whether a run that has changed belongs in a live listing."""
        tagged = all(name in run["tags"] and text in (None, run["tags"][name]) for name, text in self.tags)
        return (
            tagged
            and (not self.parent or run["parent"] == self.parent)
            and (not self.job or run["job"] == self.job)
            and (not self.statuses or run["status"] in self.statuses)
        )


def _list(
    job: str = text_option("--job", "JOB", "Only runs of this job."),
    status: list[str] = typer.Option(None, "--status", metavar="STATUS", help="Only in this state; repeatable."),  # noqa: B008
    since: str = text_option("--since", "DURATION", "Only those triggered since, as in 1h."),
    tag: list[str] = typer.Option(  # noqa: B008
        None, "--tag", metavar="NAME[=VALUE]", help="Only runs with this tag; of several, with all of them."
    ),
    parent: str = text_option("--parent", "RUN", "Only the children of this run, such as one of --each."),
    limit: int = typer.Option(
        None, "-n", "--limit", min=1, metavar="NUMBER", help=f"How many.  [default: {LIMIT}, with -w as many as fit]"
    ),
    every: bool = typer.Option(False, "--all", help="All of them."),
    watch: bool = typer.Option(False, "-w", "--watch", help="Live, until Ctrl-C."),
    json: bool = COMMON.json,
) -> Any:
    """List runs, active ones first, then the newest, with input, current step and progress.

    Example: taskrun list --status failed --since 1h
    """
    ago = durations.seconds(since, "--since") if since else None
    found = statuses(status or [])
    tags = wanted_tags(tag or ())
    folds = not (job or found or every or since or tags or parent)
    shown = limit if limit or watch or every else LIMIT
    return partial(live if watch else once, Listing(job, found, ago, shown, folds, json, tags, parent))


app.command("list")(_list)
app.command("ps", hidden=True)(_list)


def statuses(given: list[str]) -> tuple[str, ...]:
    """Returns the states that were typed, also in the words of the screens, separated by commas or in several options."""
    wanted = [part.strip().lower() for one in given for part in one.split(",") if part.strip()]
    meant = [WORDS.get(one, one) for one in wanted]
    wrong = [f'--status "{one}" is not one of {", ".join(Status)}' for one in meant if one not in set(Status)]
    if given and not wanted:
        wrong = [f"--status needs one of {', '.join(Status)}"]
    if wrong:
        raise Stop(Code.USAGE, *wrong)
    return tuple(dict.fromkeys(meant))


async def found_parent(options: Listing, backend: Backend) -> Listing:
    """Returns what was typed with the whole id of the parent."""
    return replace(options, parent=await backend.call("find", ref=options.parent)) if options.parent else options


async def once(options: Listing, session: Session) -> int:
    """Shows the runs as they are."""
    backend = await session.reader()
    options = await found_parent(options, backend)
    if options.json:
        await print_document(session, backend, each_run(backend, **options.wanted(session.now), folds=options.folds))
        return Code.DONE
    if not session.facts.out_tty:
        runs = await all_runs(backend, **options.wanted(session.now), folds=options.folds)
        session.data(runs_tsv(runs, session.now))
    elif runs := await fetched(backend, options, session.now):
        overview = await backend.call("overview")
        kept, more = folded(runs, options.limit or len(runs)) if options.folds else (runs[: options.limit], 0)
        kept = await explained(backend, kept) if backend.live else kept  # else there is one reason for all
        session.show(runs_table(once_each(kept), session.now, session.look(), more, overview["defaults"]))
        if options.counted:
            counts = totals(overview["counts"], options.job, len(kept), overview["children"])
            session.show(Text(wrapped(counts, session.look().width), "dim"))
        roots = sum(count for *_, count in overview["counts"]) - overview["children"]
        session.say(runs_footer(runs, session.now, roots <= len(runs)) or "see one: taskrun show RUN")
    else:
        session.say(nothing_found(options))
    if not backend.live and any(run["status"] not in ENDED for run in runs):
        session.say("no daemon runs, so unfinished runs wait; start it: taskrun daemon start")
    return Code.DONE


def nothing_found(options: Listing) -> str:
    """Returns why nothing is listed: there are no runs, or the filter leaves none."""
    parts = [
        *([f"of job {cell(options.job)}"] if options.job else []),
        *([" or ".join(options.statuses)] if options.statuses else []),
        *([f"children of {short(options.parent)}"] if options.parent else []),
        *("tagged " + (name if text is None else f"{name}={cell(text)}") for name, text in options.tags),
        *([f"triggered in the last {durations.human(options.since)}"] if options.since is not None else []),
    ]
    if parts:
        return f"no runs match: {', '.join(parts)}\n  see all of them: taskrun list --all"
    return "no runs; start one: taskrun start JOB   see the jobs: taskrun jobs"


async def fetched(backend: Backend, options: Listing, now: float) -> list[dict[str, Any]]:
    """Returns the runs to show, arranged: also the active ones that are older than the newest runs."""
    want = {**options.wanted(now), **({"roots": True} if options.folds else {})}
    most = want["limit"] * 2 if options.folds and want["limit"] else want["limit"]  # some are left out
    found = {run["id"]: run for run in await all_runs(backend, **{**want, "limit": most})}
    if options.folds:
        active = await all_runs(backend, **{**want, "status": sorted(UNFINISHED), "limit": ACTIVE})
        found |= {run["id"]: run for run in active}
    return arranged(run for run in found.values() if not options.leaves_out(run))


async def live(options: Listing, session: Session) -> int:
    """Shows the runs as they change; ends with success at Ctrl-C."""
    options = await found_parent(options, await session.reader())
    shown = _view_class(session)(session, options)
    whole = Completer(session)
    wanted = {**options.wanted(session.now), "limit": options.limit or LIMIT}
    try:
        async with drawing(shown.tick()):
            async for message in change_stream(session, **wanted):
                if options.json and "cut" in message.get("run", ()):
                    message["run"] = await whole.completed(message["run"])
                shown.change(message)
    except asyncio.CancelledError:
        return Code.DONE
    finally:
        shown.close()
    return Code.DONE


def _view_class(session: Session) -> type[Lines]:
    return Table if session.facts.out_tty and session.facts.cursor else Lines


class Lines:
    """A live listing for a pipe: one line for each change, tab-separated or JSON."""

    def __init__(self, session: Session, options: Listing) -> None:
        self.session = session
        self.options = options

    def change(self, message: dict[str, Any]) -> None:
        """Prints a run that has changed."""
        if message["kind"] != "run" or not self.options.takes(message["run"]):
            return
        run = message["run"]
        self.session.data(to_json(run) + "\n" if self.options.json else runs_tsv([run], self.session.now))

    async def tick(self) -> None:
        """Does nothing: nothing is drawn."""

    def close(self) -> None:
        """Does nothing: nothing was drawn."""


class Table(Lines):
    """A live listing for a terminal."""

    def __init__(self, session: Session, options: Listing) -> None:
        super().__init__(session, options)
        self._snapshot = Snapshot(options.limit or ACTIVE)
        self._sticky = Sticky(session.terminal.out, session.terminal.size, session.look(), full=True)
        self._beside = BESIDE
        self._told: dict[str, Any] = {}  # why runs are held, and what was adopted
        self._overview: dict[str, Any] = {"counts": [], "children": 0, "defaults": {}}
        self._reader = KeptReader(session)
        self._looked = False  # whether the runs were fetched that the stream does not begin with
        self._changed = False  # whether a run has changed since the last request

    def change(self, message: dict[str, Any]) -> None:
        """Takes a change; the next frame shows it."""
        if self.options.json:
            super().change(message)
        elif message["kind"] == "ready":
            self._looked = False
        elif self._concerns(message):
            self._snapshot.fold(message)
        self._changed |= message["kind"] == "run"

    def _concerns(self, message: dict[str, Any]) -> bool:
        if message["kind"] == "step":
            return message["step"]["run"] in self._snapshot.runs
        return not (self.options.folds and message["run"]["parent"])

    async def tick(self) -> None:
        """Draws a frame up to ten times a second."""
        asked = 0
        for count in itertools.count():
            if self.options.json:
                return
            begun = time.thread_time()
            self._paint(count)
            if count - asked >= (SOON if self._changed else FRESH) or not self._looked:
                asked, self._changed = count, False
                await self._ask()
            await asyncio.sleep(pause_after(begun))

    async def _ask(self) -> None:
        """Requests what no change tells; if the daemon is gone, the next time tries again."""
        with suppress(TaskrunError):
            async with self._reader.use() as backend:
                if not self._looked:
                    for run in await fetched(backend, replace(self.options, limit=self._rows()), self.session.now):
                        self._snapshot.fold({"kind": "run", "run": run})
                    self._looked = True
                self._overview = await backend.call("overview")
                shown, _ = self._shown()
                self._told = {run["id"]: run for run in await explained(backend, shown)}

    def close(self) -> None:
        """Leaves the last frame where it is."""
        self._sticky.close()

    def _rows(self) -> int:
        return self.options.limit or max(1, self.session.terminal.size()[1] - self._beside)

    def _shown(self) -> tuple[list[dict[str, Any]], int]:
        known = [run for run in self._snapshot.runs.values() if self.options.takes(run)]
        runs = arranged(run for run in known if not self.options.leaves_out(run))
        return folded(runs, self._rows()) if self.options.folds else (runs[: self._rows()], 0)

    def _beside_of(self, run: dict[str, Any]) -> dict[str, Any]:
        told = self._told.get(run["id"], {})
        return {"why": told.get("why") if run["status"] in HELD else None, "adopted": told.get("adopted", {})}

    def _paint(self, count: int) -> None:
        shown, more = self._shown()
        runs = [{**run, **self._beside_of(run)} for run in shown]
        look = self._sticky.look(count)
        table = runs_table(once_each(runs), self.session.now, look, more, self._overview["defaults"])
        if self._overview["counts"] and self.options.counted:
            counts = totals(self._overview["counts"], self.options.job, len(shown), self._overview["children"])
            counts = wrapped(counts, look.width - 1)
            self._beside = BESIDE + counts.count("\n")
            table = stacked([table, Text(counts, "dim")])
        self._sticky.paint(table)
