"""Exceptions through the journal and back."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable

import pytest

from taskrun.model import errors
from taskrun.model.codec import encode_error, error_from, error_text, rebuild
from taskrun.model.errors import CommandFailed, Fatal, InputInvalid, RunFailed, StepFailed, StepTimeout, WaitTimeout


class Plain(Exception):
    pass


class Picky(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Coded(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code

    def __str__(self) -> str:
        return f"{self.args[1]} ({self.code})"


class Changing(Exception):
    def __init__(self, text: str) -> None:
        super().__init__("changed " + text)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Outer:
    class Inner(Exception):
        pass


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


REBUILT: list[Exception] = [
    ValueError("x"),
    ValueError(),
    ValueError("a", 1),
    KeyError("a"),
    ZeroDivisionError("division by zero"),
    FileNotFoundError(2, "No such file or directory", "/x"),
    TimeoutError(),
    Plain("x"),
    Coded(3, "bad"),
    Outer.Inner("x"),
    Fatal("stop"),
    StepTimeout("slow"),
    WaitTimeout("slow"),
    CommandFailed("ls", 2, "out", "err"),
    RunFailed("id", "ValueError", "x", "tb"),
    InputInvalid("job", [("a", "is required")]),
    json.JSONDecodeError("bad", "{", 1),
]


@pytest.mark.parametrize("error", REBUILT, ids=repr)
def test_an_error_comes_back_as_its_own_type_with_its_text(error: Exception) -> None:
    back = rebuild(error_from(error_text(encode_error(error))), "fetch")
    assert type(back) is type(error)
    assert str(back) == str(error)


def test_an_error_keeps_its_attributes_where_its_arguments_give_them() -> None:
    back = rebuild(encode_error(CommandFailed("ls", 2, "out", "err")), "fetch")
    assert isinstance(back, CommandFailed)
    assert (back.code, back.stderr) == (2, "err")


@pytest.mark.parametrize(
    ("command", "code", "stderr", "told"),
    [
        ("make all", 2, "no rule\n", "`make all` ended with code 2\n  no rule"),
        ("\nset -e\nmake\n", 1, "", "`set -e …` ended with code 1"),
        ("sleep 9", -9, "", "`sleep 9` ended with SIGKILL"),
        ("sleep 9", -99, "", "`sleep 9` ended with signal 99"),
    ],
)
def test_a_failed_command_says_in_its_first_line_how_it_ended(command: str, code: int, stderr: str, told: str) -> None:
    assert str(CommandFailed(command, code, "", stderr)) == told


def local_error() -> Exception:
    class Local(Exception):
        pass

    return Local("x")


NOT_REBUILT: list[BaseException] = [
    Picky(code=3),
    Changing("x"),
    local_error(),
    ValueError(object()),
    ValueError(float("nan")),
    ExceptionGroup("some", [ValueError("x")]),
    BaseExceptionGroup("some", [KeyboardInterrupt()]),
    KeyboardInterrupt(),
    SystemExit(3),
    asyncio.CancelledError(),
    StopIteration(3),
    StopAsyncIteration(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
]


@pytest.mark.parametrize("error", NOT_REBUILT, ids=lambda error: type(error).__name__)
def test_what_cannot_be_rebuilt_is_a_step_failed_that_tells_all(error: BaseException) -> None:
    record = encode_error(raised(error))
    back = rebuild(record, "fetch")
    assert isinstance(back, StepFailed)
    assert (back.step, back.error_type, back.message) == ("fetch", record.type, record.message)
    assert back.traceback == record.traceback != ""


@pytest.mark.parametrize(
    "name", ["nowhere.Missing", "json.decoder.Missing", "os.system", "int", "", ".", "taskrun.Unwind"]
)
def test_a_name_that_is_no_loaded_exception_is_never_called(name: str) -> None:
    record = encode_error(ValueError("x"))
    odd = error_from(error_text(record).replace('"ValueError"', json.dumps(name)))
    assert isinstance(rebuild(odd, "fetch"), StepFailed)


def test_rebuilding_imports_nothing() -> None:
    record = error_from('{"type":"antigravity.Missing","message":"x","args":"[\\"x\\"]"}')
    assert isinstance(rebuild(record, "fetch"), StepFailed)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("x"), "ValueError"),
        (Outer.Inner("x"), f"{__name__}.Outer.Inner"),
        (errors.Fatal("x"), "taskrun.Fatal"),
        (json.JSONDecodeError("bad", "", 0), "json.decoder.JSONDecodeError"),
    ],
)
def test_the_type_is_the_qualified_name(error: Exception, name: str) -> None:
    assert encode_error(error).type == name


def test_an_error_whose_text_raises_is_kept_all_the_same() -> None:
    record = encode_error(raised(Mute()))
    assert "RuntimeError" in record.message
    assert record.type.endswith("Mute")


def test_an_error_whose_text_ends_the_program_ends_nothing() -> None:
    class Leaving(Exception):
        def __str__(self) -> str:
            sys.exit(3)

    assert "SystemExit" in encode_error(raised(Leaving())).message


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("\ud800 here", "\\ud800 here"),
        ("head " + "x" * 5_000_000 + " tail", "characters left out"),
    ],
    ids=["surrogate", "huge"],
)
def test_odd_text_is_made_fit_for_the_journal(text: str, has: str) -> None:
    record = encode_error(raised(ValueError(text)))
    assert has in record.message
    assert len(error_text(record)) < 100_000
    assert error_from(error_text(record)) == record


def test_huge_arguments_are_left_out_by_the_limit() -> None:
    assert encode_error(ValueError("x" * 1000), limit=100).args is None


def failing() -> None:
    raise ValueError("x")


def in_the_library() -> None:
    json.loads("{")


@pytest.mark.parametrize(("fn", "name"), [(failing, "failing"), (in_the_library, "in_the_library")])
def test_where_is_the_innermost_frame_of_the_user(fn: Callable[[], None], name: str) -> None:
    with pytest.raises(ValueError) as caught:
        fn()
    line = fn.__code__.co_firstlineno + 1
    assert encode_error(caught.value).where == f"{__file__}:{line} in {name}"


def test_an_error_never_raised_is_nowhere() -> None:
    record = encode_error(ValueError("x"))
    assert record.where == ""
    assert record.traceback == "ValueError: x\n"


def test_the_traceback_tells_causes_but_not_our_own_frames() -> None:
    try:
        try:
            rebuild(None, "x")  # type: ignore[arg-type]
        except AttributeError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        record = encode_error(error)
    assert "direct cause" in record.traceback
    assert "AttributeError" in record.traceback
    assert "codec.py" not in record.traceback
