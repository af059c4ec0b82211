"""A command that cannot be started says why as a shell would: in a handler, where it survives, and in a plain call alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskrun import CommandFailed, Queue, SqliteStorage, job, shell


async def error_of(how: str, words: list[str], cwd: Path, journal: Path) -> BaseException:
    """Returns what the step raises."""
    raised: list[BaseException] = []

    @job(retry=0)
    async def work() -> None:
        try:
            await shell(words, cwd=cwd, survive=how == "survives", check=False)
        except (CommandFailed, OSError) as error:
            raised.append(error)

    if how == "call":
        await work()
    else:
        async with Queue(jobs=[work], storage=SqliteStorage(journal)) as queue:
            await queue.jobs.work.run()
    return raised[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files that are no programs."""
    made = tmp_path / "work"
    (made / "folder").mkdir(parents=True)
    (made / "text").write_text("hi")
    for name, text in (("bare", "hi"), ("orphan", "#!/no/such/interpreter\n")):
        (made / name).write_text(text)
        (made / name).chmod(0o755)
    return made


@pytest.mark.parametrize("how", ["call", "step", "survives"])
@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("no-such-program", 127, "command not found"),
        ("./nothing", 127, "no such file"),
        ("text/nothing", 127, "no such file"),
        ("./orphan", 127, "the program that its first line names is not there"),
        ("./text", 126, "permission denied"),
        ("./folder", 126, "a folder"),
        ("./bare", 126, "neither a program nor a script that begins with #!"),
    ],
)
async def test_a_program_that_cannot_be_executed(
    how: str, program: str, code: int, said: str, folder: Path, tmp_path: Path
) -> None:
    error = await error_of(how, [program, "a"], folder, tmp_path / "journal.db")
    assert isinstance(error, CommandFailed)
    assert (error.code, error.stderr) == (code, f"{program}: {said}")
    assert str(error) == f"`{program} a` ended with code {code}\n  {program}: {said}"


@pytest.mark.parametrize("how", ["call", "step", "survives"])
async def test_a_folder_that_is_not_there(how: str, folder: Path, tmp_path: Path) -> None:
    missing, file = folder / "missing", folder / "text"
    error = await error_of(how, ["true"], missing, tmp_path / "journal.db")
    assert (type(error), str(error)) == (FileNotFoundError, f"there is no folder {missing}")
    error = await error_of(how, ["true"], file, tmp_path / "other.db")
    assert (type(error), str(error)) == (NotADirectoryError, f"{file} is not a folder")
