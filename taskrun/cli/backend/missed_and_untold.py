"""What `taskrun why` names beside the state of a run: missed slots of its schedule, and notifications that did not arrive."""

from __future__ import annotations

from itertools import dropwhile, takewhile
from typing import Any

from taskrun.cli import times
from taskrun.cli.screens.phrases import fault, short
from taskrun.cli.session import Backend
from taskrun.model.names import NOTIFY

SLOTS = 100  # of the job, among which those before the run are looked for
LATELY = 100  # notifications about it that are looked at
NAMED = 3  # slots and notifications that are named


async def missed_and_untold(backend: Backend, run: dict[str, Any], now: float) -> list[dict[str, Any]]:
    """Returns the causes that are no state of the run, as `why` has them."""
    slots = await backend.call("slots", job=run["job"], limit=SLOTS) if run["slot"] else []
    notifications = await backend.call("runs", job=NOTIFY, tags=[("run", run["id"])], limit=LATELY)
    return [*missed(run, slots, now), *untold(notifications)]


def missed(run: dict[str, Any], slots: list[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """Returns the cause for the slots of its schedule that were missed right before that of a run; of none, nothing.

    Parameters:
        slots: of the job, the newest first.
    """
    since = [*dropwhile(lambda slot: slot["run"] != run["id"], slots)]
    same = (slot for slot in since[1:] if slot["cron"] == since[0]["cron"])
    found = [slot["slot"] for slot in takewhile(lambda slot: slot["state"] == "missed", same)]
    if not found:
        return []
    named = ", ".join(times.clock(slot, now) for slot in found[:NAMED])
    more = f" and {len(found) - NAMED} earlier" if len(found) > NAMED else ""
    slots_text = "the slot before it was" if len(found) == 1 else f"the {len(found)} slots before it were"
    text = f"{slots_text} missed ({since[0]['cron']}): {named}{more}"
    return [{"kind": "missed", "text": text, "slots": found, "command": f"taskrun schedule {run['job']}"}]


def untold(notifications: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the causes for those of the notifications about a run that have not arrived, a retry of theirs neither."""
    retried = {one["retried_from"] for one in notifications}
    left = [one for one in notifications if one["status"] != "succeeded" and one["id"] not in retried]
    return [_untold(one) for one in left[:NAMED]]


def _untold(notification: dict[str, Any]) -> dict[str, Any]:
    event, lost = notification["tags"]["event"], notification["ended_at"] is not None
    way = f", by {notification['input']['to']}," if isinstance(notification["input"], dict) else ""
    error = notification["error"] or next((one["error"] for one in reversed(notification["failures"])), None)
    because = f": {fault(error)}" if error else ""
    how = "did not arrive" if lost else "has not arrived yet"
    text = f"the notification that it {_EVENTS.get(event, event)}{way} {how}{because}"
    ref = short(notification["id"])
    command = f"taskrun {'retry' if lost else 'why'} {ref}"
    return {"kind": "untold", "text": text, "run": notification["id"], "event": event, "command": command}


_EVENTS = {"late": "is late", "slow": "is slow", "paused": "is paused", "cancelled": "was cancelled"}
