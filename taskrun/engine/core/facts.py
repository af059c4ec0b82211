"""The small facts beside the journal's tables: each kind has one key, one type, and one owner who removes it.

A fact is read and written in a transaction through its kind, so that nobody else knows how its key or its text looks.
"""

from __future__ import annotations

from typing import Any

import msgspec

from taskrun.engine.core.fact_kind import Fact
from taskrun.model.notify_config import Way
from taskrun.model.records import PipeEvent
from taskrun.rules.admission import BurstFact, LastStart, Starts
from taskrun.rules.settling import Version


class TriggerTopics(msgspec.Struct, frozen=True, omit_defaults=True):
    """The topics that start a job, and when an engine that has the job last said so."""

    topics: list[str]
    at: float = 0.0


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """What people are to be told, and how.

    Parameters:
        message: the JSON that they get.
        ready: the moment from which on it is told: until then more of the same may come.
        number, last: missed slots, and the last of them.
    """

    message: dict[str, Any]
    ways: list[Way]
    ready: float = 0.0
    number: int = 0
    last: float = 0.0


class SlotLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a run of a schedule is late, and after how many seconds it is slow; None: it is not, or that was told."""

    late_at: float | None = None
    slow: float | None = None


class FileTrigger(msgspec.Struct, frozen=True):
    """A pattern of files that starts a job, and since when."""

    job: str
    pattern: str
    since: float


class KnownFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """The versions of a file that have started runs, or were there before its trigger; `gone`: since when it is gone."""

    versions: list[Version]
    gone: float | None = None


class Tables(msgspec.Struct, frozen=True):
    """Ids of what the tables of one configuration want, and when it was last applied."""

    ids: list[str]
    at: float


# Each with its id, and who removes it.
# A client's request → its run: `retention`, once the run is gone.
INTENTS: Fact[str] = Fact("intent:", str)
# By run: the keys of waits that another engine than the one that has the run has ended, or has an event for. Who has the run
# removes it; `retention`, once the run is gone.
NEWS: Fact[list[str]] = Fact("news:", list[str])
# AWAITED:WAITING → the run that waits for the end of the awaited one: `dependents`.
DEPENDENTS: Fact[str] = Fact("after:", str)
# A group of limits → its queues with their heads: `run_queue`.
QUEUES: Fact[dict[str, str]] = Fact("queues:", dict[str, str])
# By throttle id, concurrency id, debounce id: `retention`, once they are over.
THROTTLES: Fact[LastStart] = Fact("throttle:", LastStart)
STARTS: Fact[Starts] = Fact("rolling:", Starts)
BURSTS: Fact[BurstFact] = Fact("debounce:", BurstFact)
# A topic → paths of its waits' addresses: kept, 32 at most.
PATHS: Fact[list[list[str]]] = Fact("paths:", list[list[str]])
# By job: `retention`, once no engine has the job.
SUBSCRIPTIONS: Fact[TriggerTopics] = Fact("trigger:", TriggerTopics)
# Another value whenever the topics of SUBSCRIPTIONS change, so that engines know whether what they have read still holds: kept.
SUBSCRIBED: Fact[str] = Fact("subscribed:", str)
# JOB:EVENT: `event_triggers`, or `retention` where no engine has the job.
ROUTES: Fact[PipeEvent] = Fact("route:", PipeEvent)
# EVENT:RUN:MOMENT, or `missed:JOB`: `notify_runs`, once the runs that tell it are started.
NOTICES: Fact[Notice] = Fact("notice:", Notice)
# By job, or JOB:NAME where its runs have names, as those of many inputs have: since when it fails. `notices`, once it succeeds;
# `retention`, where no engine has the job.
FAILING: Fact[float] = Fact("failing:", float)
# By run: `schedule_watch`, once nothing can be told of it any more.
LIMITS: Fact[SlotLimits] = Fact("limits:", SlotLimits)
# An engine → the jobs that its executors have: goes with the engine.
JOBS: Fact[list[str]] = Fact("jobs:", list[str])
# ORIGIN:JOB:DIGEST of the pattern: `file_triggers`, once the job or the configuration has the pattern no longer.
FILE_TRIGGERS: Fact[FileTrigger] = Fact("files:", FileTrigger)
# KIND:OWNER: `tables`, once the configuration has no table of the kind, or has not been applied for long.
TABLES: Fact[Tables] = Fact("tables:", Tables)
# JOB:PATH: `file_triggers`, a while after the file is gone, or once nothing watches for the job.
FILES: Fact[KnownFile] = Fact("file:", KnownFile)
