"""Random jobs: what a seed makes of handlers, as data, so that each process builds the same jobs of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

FAST = (0.0, 0.0, 0.001, 0.01, 0.05)
SLOW = (0.1, 0.3, 1.0, 3.0)
NAPS = (0.001, 0.02, 0.2, 1.0, 5.0, 30.0, 90.0)
STEP_LIMITS: tuple[tuple[str, int, float | None], ...] = (
    *(("one", 1, None), ("one", 1, None), ("two", 2, None)),
    *(("rate", 2, 1.0), ("slow", 1, 1.0), ("slow", 1, 1.0)),
)
LONG_NAPS = (600.0, 3_600.0, 10_800.0)


@dataclass
class Node:
    """One piece of a handler: its kind, what it is given, and what stands inside it."""

    kind: str
    id: int
    args: dict[str, Any] = field(default_factory=dict)
    inner: list[Node] = field(default_factory=list)

    def has(self, *kinds: str) -> bool:
        """Whether it is of one of these kinds, or has one inside."""
        return self.kind in kinds or any(inner.has(*kinds) for inner in self.inner)

    def __str__(self) -> str:
        args = ", ".join(f"{key}={value}" for key, value in self.args.items())
        inner = "; ".join(map(str, self.inner))
        return f"{self.kind}{self.id}({args})" + (f"[{inner}]" if inner else "")


@dataclass
class JobPlan:
    """One job: its handler and its options."""

    name: str
    body: Node
    options: dict[str, Any]
    strict: bool = False  # its handler has a parameter more, which old inputs lack

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({options}){' strict' if self.strict else ''}: {self.body}"


@dataclass
class Scale:
    """What a seed's programs may contain."""

    rng: Random
    jobs: int
    depth: int = 3
    long: bool = False  # sleeps of hours
    limits: bool = True
    kinds: tuple[str, ...] = ()

    def chance(self, share: float) -> bool:
        """Draws whether something is there."""
        return self.rng.random() < share


class Programmer:
    """Writes the jobs of a seed."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._rng = scale.rng
        self._ids = 0
        self._job = 0

    def jobs(self) -> list[JobPlan]:
        """Returns the jobs, each of which may call those after it."""
        return [self.job(n) for n in range(self._scale.jobs)]

    def job(self, n: int, strict: bool = False) -> JobPlan:
        """Returns one job."""
        self._job = n
        options = self._options(n)
        if strict:
            options.pop("cron", None)  # it has an input to give
        return JobPlan(f"job{n}", self._block(self._scale.depth), options, strict)

    # ---- handlers

    def _block(self, depth: int) -> Node:
        return self._node("block", inner=[self._piece(depth) for _ in range(self._rng.choice((1, 2, 2, 3, 4)))])

    def _piece(self, depth: int) -> Node:
        kinds = ["step"] * 6 + ["sleep"] * 2 + ["value", "plain", "note", "wait", "send", "fail"]
        if self._job < self._scale.jobs - 1:
            kinds += ["child"] * 3 + ["join", "revoke"]
        if depth > 0:
            kinds += ["gather", "gather", "group", "timeout", "finally"]
        kind = self._rng.choice(kinds)
        made: Node = getattr(self, f"_{kind}")(depth)
        return made

    def _node(self, kind: str, inner: list[Node] | None = None, **args: Any) -> Node:
        self._ids += 1
        return Node(kind, self._ids, args, inner or [])

    def _step(self, depth: int) -> Node:
        rng = self._rng
        args: dict[str, Any] = {"lasts": rng.choice((*FAST, *FAST, *SLOW))}
        if self._scale.chance(0.2):
            args["fails"] = rng.choice((1, 1, 2, 9))
            args["retry"] = rng.choice((0, 1, 2))
            args["backoff"] = rng.choice((0.0, 0.01, 0.5, 5.0))
            args["caught"] = self._scale.chance(0.6)
            args["fatal"] = self._scale.chance(0.1)
        if self._scale.chance(0.1):
            args["plain"] = True
        if self._scale.chance(0.06):
            args["timeout"] = rng.choice((0.02, 0.2))
            args["caught"] = True
        if self._scale.limits and self._scale.chance(0.2):
            args["limit"] = rng.choice(STEP_LIMITS)
        return self._node("step", **args)

    def _sleep(self, depth: int) -> Node:
        return self._node("sleep", lasts=self._rng.choice(NAPS + (LONG_NAPS if self._scale.long else ())))

    def _value(self, depth: int) -> Node:
        return self._node("value", what=self._rng.choice(("now", "uuid", "random")))

    def _plain(self, depth: int) -> Node:
        return self._node("plain", lasts=self._rng.choice((0.0, *FAST, 0.5)))

    def _note(self, depth: int) -> Node:
        return self._node("note", what=self._rng.choice(("log", "log", "progress")))

    def _wait(self, depth: int) -> Node:
        return self._node(
            "wait",
            match=self._rng.choice(("any", "mapping", "predicate")),
            timeout=self._rng.choice((None, 0.01, 0.5, 5.0, 60.0)),
        )

    def _join(self, depth: int) -> Node:
        return self._node("join", job=self._later(), timeout=self._rng.choice((0.02, 1.0, 10.0)))

    def _revoke(self, depth: int) -> Node:
        return self._node("revoke", job=self._later(), n=self._rng.randrange(3))

    def _later(self) -> int:
        return self._rng.randrange(self._job + 1, self._scale.jobs)

    def _send(self, depth: int) -> Node:
        return self._node("send", n=self._rng.randrange(3))

    def _fail(self, depth: int) -> Node:
        return self._node("fail", times=self._rng.choice((1, 1, 2, 9)))

    def _child(self, depth: int) -> Node:
        return self._node(
            "child",
            job=self._later(),
            how=self._rng.choice(("run", "run", "run", "start", "result", "cancel")),
            n=self._rng.randrange(3),
            caught=self._scale.chance(0.7),
        )

    def _gather(self, depth: int) -> Node:
        inner = [self._piece(depth - 1) for _ in range(self._rng.choice((2, 2, 3)))]
        if self._scale.chance(0.25):
            return self._failing_beside(inner)
        return self._node("gather", inner, caught=self._scale.chance(0.5))

    def _failing_beside(self, inner: list[Node]) -> Node:
        """A branch that fails before its first step, beside others that go on; and a later failure of the attempt."""
        first = self._node("block", [self._node("fail", times=1), self._step(0)])
        together = self._node("gather", [first, *inner], caught=True)
        return self._node("block", [together, self._node("plain", lasts=0.5), self._node("fail", times=1)])

    def _group(self, depth: int) -> Node:
        inner = [self._block(depth - 2) for _ in range(2)]
        return self._node("group", inner, caught=self._scale.chance(0.5))

    def _timeout(self, depth: int) -> Node:
        return self._node("timeout", [self._block(depth - 2)], lasts=self._rng.choice((0.005, 0.1, 1.0, 10.0)))

    def _finally(self, depth: int) -> Node:
        return self._node("finally", [self._block(depth - 2), self._step(0)])

    # ---- options

    def _options(self, n: int) -> dict[str, Any]:
        rng, chance = self._rng, self._scale.chance
        options: dict[str, Any] = {"retry": rng.choice((0, 1, 1, 3)), "backoff": rng.choice((0.0, 0.02, 0.5, 4.0))}
        if chance(0.12):
            options["timeout"] = rng.choice((0.3, 2.0, 20.0))
        if self._scale.limits:
            if chance(0.35):
                shared = rng.choice((None, "lane"))
                options["concurrency"] = rng.choice(((shared, 1, None), (shared, 2, None), (shared, 2, 1.0)))
            if chance(0.12):
                options["throttle"] = (
                    rng.choice((None, "valve")),
                    rng.choice((0.1, 2.0)),
                    rng.choice(("discard", "queue")),
                )
            if chance(0.1):
                options["debounce"] = (
                    rng.choice((0.05, 1.0)),
                    rng.choice(("trailing", "leading")),
                    rng.choice((None, 3.0)),
                )
        if chance(0.3):
            options["priority"] = rng.choice((1, 2, "n"))
        if chance(0.1):
            options["key"] = "n"
        if chance(0.08):
            options["on_exhausted"] = "pause"
        if chance(0.03) and not self._scale.long:
            options["cron"] = rng.choice(("*/20 * * * * *", "* * * * *"))
        if chance(0.15):
            options["trigger"] = "pipe"
        elif n > 0 and chance(0.12):
            options["trigger"] = f"job{rng.randrange(n)}"
        return options
