"""No call of `logging` or `print` fails a run, and no configuration of them silences one."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import logging.config
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from taskrun import current, job, log, run
from taskrun.engine.executor.capture import Capture
from taskrun.testing import TestQueue

library = logging.getLogger("library")


async def lines_of(*bodies: Callable[[], Any], in_step: bool = False) -> list[tuple[str, str]]:
    """The logs of runs that do this one after the other, none of which may fail."""

    @job(retry=0)
    async def handler(number: int) -> None:
        if in_step:
            await run("step", bodies[number])
        else:
            bodies[number]()

    found = []
    async with TestQueue(jobs=[handler]) as queue:
        for number in range(len(bodies)):
            handle = await queue.jobs.handler.start(number=number)
            await handle.result()
            found += [(line.stream, line.text) async for line in handle.log()]
    return found


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Puts back what a test configures."""
    root = logging.getLogger()
    before = root.level, root.handlers[:], root.manager.disable, sys.stdout, sys.stderr
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    logging.disable(before[2])
    sys.stdout, sys.stderr = before[3:]
    for logger in (library, log):
        logger.disabled, logger.propagate = False, True
        logger.handlers.clear()
        logger.filters.clear()


@contextlib.contextmanager
def capturing(echo: bool) -> Iterator[None]:
    """Without the handlers of pytest, which come anew with each phase of a test."""
    logging.getLogger().handlers.clear()
    Capture.install(echo)
    try:
        yield
    finally:
        Capture.remove()


class Wrong:
    """Has no text."""

    def __str__(self) -> str:
        raise ZeroDivisionError("no text today")

    __repr__ = __str__


class BadFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        raise RuntimeError("no format today")


class BadHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("no handler today")


# ---- bad calls


@pytest.mark.parametrize("logger", [log, library], ids=["log", "library"])
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda to: to.warning("%d", "x"), "WARNING %d (not formatted: TypeError"),
        (lambda to: to.warning("bad %s %d", "x"), "not enough arguments"),
        (lambda to: to.warning("none", 1, 2), "not all arguments converted"),
        (lambda to: to.warning("%(a)s", {"b": 1}), "KeyError"),
        (lambda to: to.warning("%s", Wrong()), "ZeroDivisionError: no text today"),
        (lambda to: to.warning("%r", Wrong()), "<Wrong whose str() raised ZeroDivisionError>"),
        (lambda to: to.warning(Wrong()), "ZeroDivisionError"),
        (lambda to: to.warning(Wrong(), Wrong()), "ZeroDivisionError"),
        (lambda to: to.warning("text", extra={"message": 1}), 'WARNING text (a bad logging call: KeyError: "Attempt'),
        (lambda to: to.warning("text", extra={"name": 1}), "KeyError"),
        (lambda to: to.warning("text", extra=5), "TypeError"),
        (lambda to: to.warning("text", user="me"), "unexpected keyword argument 'user'"),
        (lambda to: to.warning("text", exc_info=5), "WARNING text"),
        (lambda to: to.exception("no error here"), "ERROR no error here"),
        (lambda to: to.warning(b"\xff"), "WARNING b'\\xff'"),
        (lambda to: to.warning(5), "WARNING 5"),
        (lambda to: to.warning("a\nb"), "WARNING a"),
        (lambda to: to.log(45, "odd level"), "Level 45 odd level"),
        (lambda to: to.handle(logging.makeLogRecord({"msg": "%d", "args": ("x",), "levelname": "X"})), "X %d (not"),
    ],
)
async def test_a_bad_logging_call_fails_nothing_and_the_line_says_what_was_wrong(
    logger: logging.Logger, call: Callable[[logging.Logger], None], says: str
) -> None:
    found = await lines_of(lambda: call(logger))
    assert any(says in text for stream, text in found if stream == "log"), found
    assert await lines_of(lambda: call(logger), in_step=True) == found


async def test_a_record_that_is_no_utf8_is_kept() -> None:
    logging.getLogger().handlers.clear()  # those of pytest cannot show it
    assert await lines_of(lambda: library.warning("half \ud800 of a pair")) == [
        ("log", "WARNING half \\ud800 of a pair")
    ]


async def test_a_handler_of_logging_that_fails_is_named_and_the_line_is_there() -> None:
    library.addHandler(BadHandler())
    found = await lines_of(lambda: library.warning("text"))
    assert found == [("log", "WARNING text"), ("system", "a handler of logging failed: RuntimeError: no handler today")]


async def test_a_formatter_that_fails_harms_nothing() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(BadFormatter())
    library.addHandler(handler)
    assert await lines_of(lambda: library.warning("text")) == [("log", "WARNING text")]


async def test_a_filter_that_fails_is_told() -> None:
    def refuse(_record: logging.LogRecord) -> bool:
        raise RuntimeError("no filter today")

    library.addFilter(refuse)
    ((_, text),) = await lines_of(lambda: library.warning("text"))
    assert text == "WARNING text (a bad logging call: RuntimeError: no filter today)"


def test_outside_of_runs_a_bad_call_is_what_it_always_was() -> None:
    with capturing(echo=True), pytest.raises(KeyError):
        library.warning("text", extra={"message": 1})


@pytest.mark.parametrize(
    ("write", "kept"),
    [
        (lambda: print("half \ud800 of a pair"), ["half \\ud800 of a pair"]),
        (lambda: print(b"\xff"), ["b'\\xff'"]),
        (lambda: sys.stdout.buffer.write(b"caf\xc3\xa9 \xff\n"), ["café \\xff"]),
        (lambda: sys.stdout.writelines(["a\n", "b\n"]), ["a", "b"]),
        (lambda: print("x", file=sys.stdout, flush=True), ["x"]),
        (lambda: print(*range(3), sep=", "), ["0, 1, 2"]),
    ],
)
async def test_whatever_is_printed_is_kept(write: Callable[[], Any], kept: list[str]) -> None:
    assert [text for _, text in await lines_of(write)] == kept


async def test_a_terminal_that_cannot_show_a_character_harms_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert [text for _, text in await lines_of(lambda: print("é \ud800"))] == ["é \\ud800"]
    screen.flush()
    assert screen.buffer.getvalue() == b"\\xe9 \\ud800\n"


async def test_a_terminal_that_is_gone_harms_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    screen.close()
    assert [text for _, text in await lines_of(lambda: print("text", flush=True))] == ["text"]


# ---- configurations


def talk() -> None:
    log.info("taskrun's")
    library.warning("a library's")
    print("printed")
    print("as an error", file=sys.stderr)


TALK = [("log", "INFO taskrun's"), ("log", "WARNING a library's"), ("stdout", "printed"), ("stderr", "as an error")]
STREAM = {"h": {"class": "logging.StreamHandler"}}
WITH_ROOT = {"version": 1, "root": {"level": "INFO", "handlers": ["h"]}, "handlers": STREAM}
OTHERS = {"version": 1, "handlers": STREAM, "loggers": {"library": {"propagate": False, "handlers": ["h"]}}}
OURS = {"version": 1, "handlers": STREAM, "loggers": {"taskrun": {"propagate": False, "handlers": ["h"]}}}


def replace_streams() -> None:
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()


def close_streams() -> None:
    sys.stdout.close()
    sys.stderr.close()


def drop_streams() -> None:
    sys.stdout = sys.stderr = None


def tee() -> None:
    class Tee:
        def __init__(self, real: Any) -> None:
            self.real = real

        def write(self, text: str) -> int:
            return int(self.real.write(text))

        def flush(self) -> None:
            self.real.flush()

    sys.stdout = Tee(sys.stdout)


@pytest.mark.parametrize(
    "configure",
    [
        lambda: logging.config.dictConfig(WITH_ROOT),
        lambda: logging.config.dictConfig(OTHERS),
        lambda: logging.config.dictConfig(OURS),
        lambda: logging.config.dictConfig({"version": 1}),
        lambda: logging.basicConfig(force=True),
        lambda: logging.getLogger().handlers.clear(),
        logging.shutdown,
        replace_streams,
        close_streams,
        drop_streams,
        tee,
    ],
)
async def test_what_a_run_configures_silences_none_after_it(configure: Callable[[], Any]) -> None:
    assert await lines_of(talk, configure, talk, configure, talk) == TALK * 3


async def test_a_record_is_said_once_though_a_handler_prints_it_too() -> None:
    def configured() -> None:
        logging.basicConfig(force=True, stream=sys.stderr)
        library.warning("text")

    assert await lines_of(configured) == [("log", "WARNING text")]


async def test_a_configuration_for_the_code_of_a_file_is_not_kept_from_working(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`basicConfig` does nothing where the root logger has a handler already."""
    with capturing(echo=True):
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="mine %(message)s")
        library.debug("outside")
        assert capsys.readouterr().err == "mine outside\n"
        assert await lines_of(lambda: library.debug("text")) == [("log", "DEBUG text")]


async def test_who_logged_is_found_past_our_frames(caplog: pytest.LogCaptureFixture) -> None:
    await lines_of(lambda: library.warning("text"))
    (record,) = [record for record in caplog.records if record.name == "library"]
    assert record.filename == "test_logging.py"


async def test_what_taskrun_logs_of_itself_is_of_no_run() -> None:
    assert await lines_of(lambda: logging.getLogger("taskrun.engine.core").warning("text")) == []


def test_in_a_worker_the_root_logger_takes_info_unless_the_code_wants_it_otherwise() -> None:
    with capturing(echo=False):
        assert library.getEffectiveLevel() == logging.INFO
        logging.getLogger().setLevel(logging.ERROR)  # while the jobs are loaded
        with capturing(echo=False):
            logging.getLogger().setLevel(logging.DEBUG)  # in a run
            logging.disable(logging.CRITICAL)
            Capture.refresh()
            assert library.getEffectiveLevel() == logging.ERROR
            assert library.isEnabledFor(logging.ERROR)


def test_in_a_worker_the_streams_put_back_are_the_first_ones_however_often() -> None:
    with capturing(echo=False):
        ours = sys.stdout
        for replace in (tee, replace_streams, drop_streams):
            replace()
            Capture.refresh()
            assert sys.stdout is ours


# ---- threads


def in_thread(fn: Callable[[], None]) -> None:
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join()


def in_timer(fn: Callable[[], None]) -> None:
    timer = threading.Timer(0, fn)
    timer.start()
    timer.join()


def in_pool(fn: Callable[[], None]) -> None:
    with ThreadPoolExecutor() as pool:
        pool.submit(fn).result()


def in_map(fn: Callable[[], None]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: fn(), [1]))


@pytest.mark.parametrize("start", [in_thread, in_timer, in_pool, in_map, lambda fn: in_thread(lambda: in_thread(fn))])
@pytest.mark.parametrize("in_step", [False, True])
async def test_threads_belong_to_the_run_that_starts_them(
    start: Callable[[Callable[[], None]], None], in_step: bool
) -> None:
    def talk_more() -> None:
        talk()
        print(current().job)

    assert await lines_of(lambda: start(talk_more), in_step=in_step) == [*TALK, ("stdout", "handler")]


async def test_a_thread_of_a_pool_is_of_whoever_asks_it() -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:
        found = await lines_of(*(lambda text=text: pool.submit(print, text).result() for text in "abc"))
        assert [text for _, text in found] == ["a", "b", "c"]
        outside = pool.submit(current)
        assert "there is no run here" in str(outside.exception())


async def test_a_thread_that_outlives_its_run_speaks_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    go = threading.Event()

    def wait_and_print() -> None:
        go.wait(5)
        print("late")
        library.warning("late too")

    threads = [threading.Thread(target=wait_and_print)]
    assert await lines_of(threads[0].start) == []
    go.set()
    threads[0].join()
    assert capsys.readouterr().out == "late\n"


def test_what_a_fork_of_a_run_prints_goes_where_that_of_any_child_goes(capfd: pytest.CaptureFixture[str]) -> None:
    def fork() -> None:
        if (child := os.fork()) == 0:
            print("from the child", flush=True)
            os._exit(0)
        os.waitpid(child, 0)

    assert asyncio.run(lines_of(fork)) == []
    assert capfd.readouterr().out == "from the child\n"
