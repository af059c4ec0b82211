"""The history of failed attempts: what is kept of it, however many there are."""

from __future__ import annotations

import msgspec

from taskrun import CommandFailed
from taskrun.model.codec import encode_error, rebuild
from taskrun.model.records import ErrorRecord, Failure
from taskrun.rules.transitions import with_failure


def history(*errors: ErrorRecord) -> str:
    failures = None
    for attempt, error in enumerate(errors, 1):
        failures = with_failure(failures, Failure(attempt=attempt, at=float(attempt), error=error))
    return failures or "[]"


def read(failures: str) -> list[Failure]:
    return msgspec.json.decode(failures, type=list[Failure])


def raised(text: str) -> ErrorRecord:
    try:
        raise ValueError(text)
    except ValueError as error:
        return encode_error(error)


def test_of_many_failures_the_first_and_the_last_are_kept_and_the_others_counted() -> None:
    kept = read(history(*[raised(f"no {attempt}") for attempt in range(1, 101)]))
    attempts = [failure.attempt for failure in kept]
    assert attempts == [*range(1, 11), *range(81, 101)]
    assert [failure.left_out for failure in kept if failure.left_out] == [70]
    assert kept[10].left_out == 70
    assert [str(rebuild(failure.error, "")) for failure in kept] == [f"no {attempt}" for attempt in attempts]


def test_only_the_newest_failures_have_their_tracebacks() -> None:
    kept = read(history(*[raised("no") for _ in range(5)]))
    assert [bool(failure.error.traceback) for failure in kept] == [False, False, True, True, True]


def test_what_a_command_printed_does_not_grow_the_history_with_each_failure() -> None:
    loud = CommandFailed("make", 2, "out\n" * 300_000, "err\n" * 300_000)
    failures = history(*[encode_error(loud)] * 50)
    assert len(failures) < 300_000
    error = rebuild(read(failures)[-1].error, "")
    assert isinstance(error, CommandFailed)
    assert (error.command, error.code, str(error)) == ("make", 2, str(loud))


def test_args_that_are_large_without_long_texts_are_left_out() -> None:
    [failure] = read(history(encode_error(ValueError(list(range(10_000))))))
    assert failure.error.args is None
    assert failure.error.type == "ValueError"
