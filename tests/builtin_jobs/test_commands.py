"""Jobs that are commands: what they run with, what they give, and how they fail and go on."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskrun import Cron, InputInvalid, RunFailed
from taskrun.builtins.command_environment import read_env_file
from taskrun.engine.executor.replay import digest_of_step
from taskrun.model.errors import DefinitionError
from tests.builtin_jobs.conftest import Project, queue_of
from tests.declarations.fake import handler

SHOW = "python3 -c 'import sys; print(repr(sys.argv[1:]))'"


async def output_of(project: Project, text: str, name: str = "x", **fields: Any) -> Any:
    async with queue_of(project(text)) as queue:
        return await queue.jobs[name].run(**fields)


# ---- what it runs


async def test_fields_are_words_of_the_shell(project: Project) -> None:
    text = f'[jobs.x]\ncommand = """{SHOW} {{a}} --b={{b}} {{c}}"""\ninput = {{ a = "x", b = true, c = ["1 2", "3"] }}'
    assert await output_of(project, text, a="it's $(a) test") == repr(["it's $(a) test", "--b=true", "1 2", "3"])


async def test_a_list_is_executed_as_it_is(project: Project) -> None:
    text = '[jobs.x]\ncommand = ["printf", "<%s>", "$HOME", "{a}", "{c}", "-{a}"]\ninput = { a = "a  b", c = ["1 2", "3"] }'
    assert await output_of(project, text) == "<$HOME><a  b><1 2><3><-a  b>"


ODD = st.text("ab '\"`$(){};&|<>\\\n#*?~!-=%\t\x7f\x80é\udce9\udc81\udcff\U0010ffe9", min_size=0, max_size=12)


@given(text=ODD, words=st.lists(ODD, max_size=9))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_text_goes_through_every_form_unharmed(project: Project, text: str, words: list[str]) -> None:
    """By the shell, in a list, in TASKRUN_INPUT; as a field of its own and as elements of a list."""
    script = "import json,os,sys;print(json.dumps([sys.argv[1:], os.environ['TASKRUN_INPUT']]))"
    python = f"{sys.executable} -ISc"
    toml = f"""
[jobs.shell]
command = '''{python} "{script}" {{a}} --a={{a}} {{c}}'''
input = {{ a = {{ type = "str" }}, c = {{ type = "list" }} }}
output = "json"
[jobs.list]
command = ["{sys.executable}", "-ISc", "{script.replace("{", "{{").replace("}", "}}")}", "{{a}}", "--a={{a}}", "{{c}}"]
input = {{ a = {{ type = "path" }}, c = {{ type = "list" }} }}
output = "json"
"""
    async with queue_of(project(toml)) as queue:
        for name in ("shell", "list"):
            run = await queue.jobs[name].start(a=text, c=words)
            arguments, told = await run.result()
            assert arguments == [text, f"--a={text}", *words]
            assert json.loads(told) == {"a": text, "c": words}


async def test_a_nul_is_refused_when_it_is_triggered(project: Project) -> None:
    async with queue_of(project('[jobs.x]\ncommand = "echo {a}"\ninput = { a = "" }')) as queue:
        with pytest.raises(InputInvalid, match="a: holds a NUL"):
            await queue.jobs.x.run(a="x\0y")
        assert [run async for run in queue.runs()] == []


# ---- its environment


async def test_it_is_told_of_its_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TASKRUN_")]:
        monkeypatch.delenv(name)
    names = "RUN JOB ATTEMPT INPUT"
    text = f'[jobs.x]\ncommand = "env"\ninput = {{ a = "b c" }}\n[jobs.y]\ncommand = "echo {names}"'
    async with queue_of(project(text)) as queue:
        run = await queue.jobs.x.start()
        found = dict(line.split("=", 1) for line in (await run.result()).splitlines() if line.startswith("TASKRUN_"))
    assert found == {
        "TASKRUN_RUN": run.id,
        "TASKRUN_JOB": "x",
        "TASKRUN_ATTEMPT": "1",
        "TASKRUN_INPUT": '{"a":"b c"}',
    }


async def test_a_slot_is_told_too(project: Project) -> None:
    async with queue_of(project('[jobs.x]\ncommand = "echo $TASKRUN_SLOT"\ncron = "@hourly"')) as queue:
        await queue.advance("1h")
        (run,) = [run async for run in queue.runs()]
        slot = await run.result()
    assert slot.endswith(":00:00+00:00")


async def test_a_large_input_is_in_a_file_of_this_user_alone(project: Project, tmp_path: Path) -> None:
    command = 'f="$TASKRUN_INPUT_FILE"; stat -c %a "$f"; echo "$f"; wc -c < "$f"; echo "[$TASKRUN_INPUT]"'
    text = f"[jobs.x]\ncommand = '''{command}'''\ninput = {{ a = [\"\"] }}"
    mode, file, size, small = (await output_of(project, text, a=["x" * 1000] * 200)).splitlines()
    assert (mode, small) == ("600", "[]")
    assert int(size) > 200_000
    assert not Path(file).exists()


async def test_what_is_said_later_wins(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B", "C", "D", "TASKRUN_JOB"):
        monkeypatch.setenv(name, "worker")
    (tmp_path / "vars").write_text("B=file\nC=file\nD=file\nTASKRUN_JOB=file\n")
    text = """
[jobs.x]
env_file = "vars"
env = { C = "job", D = "job", TASKRUN_JOB = "job" }
steps = [{ command = "echo $A $B $C $D $TASKRUN_JOB", env = { D = "step" } }]
"""
    assert await output_of(project, text) == "worker file job step x"


async def test_an_env_file_is_read_at_each_start_and_a_missing_one_fails_the_attempt(
    project: Project, tmp_path: Path
) -> None:
    async with queue_of(project('[jobs.x]\ncommand = "echo $A"\nenv_file = "vars"')) as queue:
        with pytest.raises(RunFailed, match="vars cannot be read: No such file"):
            await queue.jobs.x.run()
        for value in ("1", "2"):
            (tmp_path / "vars").write_text(f"A={value}")
            assert await queue.jobs.x.run() == value


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1\n\n# comment\n  B=2\n", {"A": "1", "B": "2"}),
        ('A="x y" # z', {"A": '"x y" # z'}),
        ("A=", {"A": ""}),
        ("A=b=c", {"A": "b=c"}),
        ("KNOWN\nUNKNOWN", {"KNOWN": "yes"}),
        ("\ufeffA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=x\u2028y\x0cz\x85\nB=2", {"A": "x\u2028y\x0cz\x85", "B": "2"}),
    ],
)
def test_an_env_file_is_read_as_docker_does(tmp_path: Path, text: str, variables: dict[str, str]) -> None:
    (tmp_path / "vars").write_text(text, newline="")
    assert read_env_file(tmp_path / "vars", {"KNOWN": "yes"}) == variables


@pytest.mark.parametrize("line", ["A B=1", "=1", "A B"])
def test_a_line_that_is_no_variable_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "vars").write_text(f"OK=1\n{line}\n")
    with pytest.raises(DefinitionError, match=r"vars, line 2: expected NAME=value or NAME"):
        read_env_file(tmp_path / "vars", {})


@pytest.mark.parametrize(("cwd", "where"), [("", "."), ('cwd = "sub"', "sub"), ('cwd = "/"', "/")])
async def test_it_runs_in_the_projects_root_unless_it_says_where(
    project: Project, tmp_path: Path, cwd: str, where: str
) -> None:
    (tmp_path / "sub").mkdir()
    assert await output_of(project, f'[jobs.x]\ncommand = "pwd -P"\n{cwd}') == str((tmp_path / where).resolve())


# ---- what it gives


@pytest.mark.parametrize(
    ("command", "kind", "output"),
    [
        ("printf 'a\\n\\n'", "text", "a\n"),
        ("printf a", "text", "a"),
        ("echo no >&2", "text", ""),
        ("""echo '{{"a": [1]}}'""", "json", {"a": [1]}),
        ("echo x", "none", None),
    ],
)
async def test_its_output_is_what_it_printed(project: Project, command: str, kind: str, output: Any) -> None:
    text = f"[jobs.x]\ncommand = {json.dumps(command)}\noutput = '{kind}'"
    assert await output_of(project, text) == output


async def test_the_output_of_several_steps_is_that_of_the_last(project: Project) -> None:
    assert await output_of(project, '[jobs.x]\nsteps = ["echo a", "echo b"]') == "b"


async def test_what_is_no_json_fails_the_attempt(project: Project) -> None:
    with pytest.raises(RunFailed, match="what the command printed is not JSON") as caught:
        await output_of(project, '[jobs.x]\ncommand = "echo no"\noutput = "json"')
    assert caught.value.error_type == "taskrun.OutputInvalid"


async def test_json_of_which_the_middle_is_not_kept_is_named(project: Project) -> None:
    command = f"echo '['; yes {'1,' * 30} | head -c 2000000; echo 1]"
    with pytest.raises(RunFailed, match="printed more than 1 MB, of which head and tail are kept"):
        await output_of(project, f'[jobs.x]\ncommand = "{command}"\noutput = "json"')


# ---- how it fails and goes on


async def test_another_code_than_those_of_success_fails_it(project: Project) -> None:
    text = '[jobs.x]\ncommand = "exit {code}"\ninput = { code = 0 }\nsuccess_codes = [0, 3]'
    async with queue_of(project(text)) as queue:
        assert await queue.jobs.x.run(code=3) == ""
        with pytest.raises(RunFailed, match="`exit 4` ended with code 4"):
            await queue.jobs.x.run(code=4)


async def test_a_retry_goes_on_at_the_step_that_failed(project: Project, tmp_path: Path) -> None:
    text = """
[jobs.x]
steps = ["echo first >> log", { name = "shaky", command = "echo $TASKRUN_ATTEMPT >> log; test -e mended" }, "echo last >> log"]
retry = 1
backoff = "1m"
env_file = "vars"
"""
    (tmp_path / "vars").write_text("A=1")
    async with queue_of(project(text)) as queue:
        run = await queue.jobs.x.start()
        await queue.advance("1s")
        (tmp_path / "mended").touch()
        (tmp_path / "vars").write_text("A=2")  # what a file of variables says makes no other call of a step
        await queue.advance("1m")
        await run.result()
        steps = [(step["key"], step["kind"], step["status"]) for step in await run.steps()]
    assert (tmp_path / "log").read_text().split() == ["first", "1", "2", "last"]
    assert steps == [(name, "shell", "succeeded") for name in ("step-1", "shaky", "step-3")]


async def test_by_default_nothing_is_retried(project: Project, tmp_path: Path) -> None:
    with pytest.raises(RunFailed):
        await output_of(project, '[jobs.x]\ncommand = "echo x >> log; false"')
    assert (tmp_path / "log").read_text() == "x\n"


async def test_a_step_may_retry_by_itself(project: Project, tmp_path: Path) -> None:
    text = '[jobs.x]\nsteps = [{ command = "echo x >> log; test $(wc -l < log) = 3", retry = 2 }]\nbackoff = 0'
    await output_of(project, text)
    assert (tmp_path / "log").read_text() == "x\n" * 3


@pytest.mark.parametrize(("written", "rerun"), [("", True), ("rerun = false", False)])
async def test_its_commands_outlive_their_worker(project: Project, written: str, rerun: bool) -> None:
    found = project(f'[jobs.x]\ncommand = "true"\noutput = "none"\n{written}')
    with handler() as fake:
        await found.registry.jobs["x"].fn({})
    (call,) = fake.calls
    assert (call.survive, call.rerun) == (True, rerun)


async def test_a_step_without_a_name_is_the_same_call_only_with_the_same_command(project: Project) -> None:
    """Where steps are inserted before a retry, one that is only known by its place must not take another's record."""
    compared = []
    for command in ("one", "two"):
        steps = f'steps = ["{command} {{n}}", {{ name = "build", command = "{command}" }}]'
        text = f'[jobs.x]\n{steps}\ninput = {{ n = 1 }}\noutput = "none"'
        with handler() as fake:
            await project(text).registry.jobs["x"].fn({"n": 1})
        compared.append([digest_of_step(call) for call in fake.calls])
    (by_place, named), (by_place_after, named_after) = compared
    assert (by_place == by_place_after, named == named_after) == (False, True)


async def test_options_are_those_of_a_job(project: Project) -> None:
    text = """
[jobs.x]
command = "true"
input = { path = "a", n = 1 }
key = "{path}-{n}"
key_ttl = "1h"
retry = 2
priority = 5
concurrency = 3
throttle = { }
"""
    found = project(text.replace("throttle = { }\n", "throttle = '2/s'\n"))
    terms = found.registry.jobs["x"].prepare({"n": 2}).terms
    assert (terms.key, terms.key_ttl, terms.retry, terms.priority) == ("a-2", 3600.0, 2, 5)
    assert terms.concurrency is not None
    assert terms.throttle is not None
    assert (terms.concurrency.limit, terms.throttle.duration) == (3, 1.0)


async def test_a_schedule_takes_all_that_a_cron_takes(project: Project) -> None:
    cron = 'cron = ["@daily", "@hourly"]\ntimezone = "UTC"\ncatch_up = "one"\nwithin = "2h"\nlate = "5m"\nslow = "1h"'
    found = project(f'[jobs.x]\ncommand = "true"\ntags = {{ team = "a" }}\n{cron}')
    crons = found.registry.jobs["x"].options.crons
    rest: dict[str, Any] = {"timezone": "UTC", "catch_up": "one", "within": "2h", "late": "5m", "slow": "1h"}
    assert list(crons) == [Cron("@daily", **rest), Cron("@hourly", **rest)]
    assert found.registry.jobs["x"].prepare({}).terms.tags == {"team": "a"}


async def test_it_is_described_like_a_job_of_a_file(project: Project, tmp_path: Path) -> None:
    found = project(
        '[pipes.p]\n\n[jobs.x]\ndescription = "Does it"\ncommand = "true"\ntrigger = ["p"]\ncron = "@daily"\n'
    )
    described = found.registry.jobs["x"].describe()
    assert (described["file"], described["line"]) == (str(tmp_path / "taskrun.toml"), 3)
    assert (described["description"], described["triggers"]) == ("Does it", ["pipe:p"])
    assert described["schedules"] == [{"cron": "@daily", "timezone": None}]
    assert described["commands"] == ["true"]
