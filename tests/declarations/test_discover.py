"""Finding a project's jobs: each file once, under one name, and a broken one alone."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskrun.declarations.registry import Discovery, discover

Write = Callable[[str, str], Path]
HEAD = "from taskrun.declarations.job import job\nfrom taskrun.declarations.pipe import pipe\n"


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes a file of the project; afterwards nothing of it is left in this process."""

    def write(name: str, text: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    yield write
    (tmp_path / "nothing").mkdir(exist_ok=True)
    discover([], tmp_path / "nothing")


def a_job(name: str, body: str = "None") -> str:
    return f"{HEAD}@job\ndef {name}():\n    return {body}\n"


def names(found: Discovery) -> list[str]:
    return sorted(found.registry.jobs)


def problems(found: Discovery) -> list[tuple[str, int, str]]:
    return [(Path(one.file).name, one.line, one.text) for one in found.problems]


def test_a_folder_gives_the_jobs_of_all_its_files(write: Write, tmp_path: Path) -> None:
    write("work/music.py", a_job("music"))
    write("work/deep/down.py", a_job("deep"))
    write("work/helper.py", "X = 1\n")
    write("work/_private.py", "raise SystemExit\n")
    write("work/.hidden.py", "raise SystemExit\n")
    write("work/__pycache__/x.py", "raise SystemExit\n")
    write("work/notes.txt", "no python\n")
    found = discover(["work"], tmp_path)
    assert (names(found), found.problems) == (["deep", "music"], [])
    assert [file.name for file in found.files] == ["down.py", "helper.py", "music.py"]


def test_entries_may_be_modules_packages_files_and_globs(write: Write, tmp_path: Path) -> None:
    write("alone_tr.py", a_job("alone"))
    write("pack_tr/__init__.py", a_job("packed"))
    write("pack_tr/inner.py", a_job("inner"))
    write("scripts_tr/one.py", a_job("one"))
    write("scripts_tr/two.py", a_job("two"))
    write("other_tr/three.py", a_job("three"))
    found = discover(["alone_tr", "pack_tr", "scripts_tr/one.py", "other_*/t*.py"], tmp_path)
    assert (names(found), found.problems) == (["alone", "inner", "one", "packed", "three"], [])
    again = discover(["pack_tr.inner", "alone_tr.py"], tmp_path)
    assert (names(again), again.problems) == (["alone", "inner"], [])


@pytest.mark.parametrize(
    "imports", ["from audio_tr import f", "from work.audio_tr import f", "import audio_tr; f = audio_tr.f"]
)
def test_a_job_file_imports_its_neighbours_either_way(write: Write, tmp_path: Path, imports: str) -> None:
    write("work/audio_tr.py", "def f(): return 'heard'\n")
    write("work/music.py", f"{HEAD}{imports}\n@job\ndef music(): return f()\n")
    found = discover(["work"], tmp_path)
    assert found.problems == []
    assert found.registry.jobs["music"].fn() == "heard"


def test_a_file_is_loaded_once_whatever_it_is_imported_as(write: Write, tmp_path: Path) -> None:
    write("counted_tr.py", "loads = []\n")
    write("work/a_user.py", f"{HEAD}import z_audio\nfrom work import z_audio as other\nassert z_audio is other\n")
    write(
        "work/deep/b_user.py", "from deep import c_part\nimport work.deep.c_part\nassert c_part is work.deep.c_part\n"
    )
    write("work/deep/c_part.py", "import counted_tr\ncounted_tr.loads.append(__name__)\n")
    write("work/z_audio.py", f"{a_job('audio')}import counted_tr\ncounted_tr.loads.append(__name__)\n")
    found = discover(["work"], tmp_path)
    assert (names(found), found.problems) == (["audio"], [])
    assert sorted(sys.modules["counted_tr"].loads) == ["work.deep.c_part", "work.z_audio"]


def test_neighbours_can_still_be_imported_while_handlers_run(write: Write, tmp_path: Path) -> None:
    write("work/late_tr.py", "X = 5\n")
    write("work/music.py", f"{HEAD}@job\ndef music():\n    import late_tr\n    return late_tr.X, late_tr.__name__\n")
    assert discover(["work"], tmp_path).registry.jobs["music"].fn() == (5, "work.late_tr")


def test_the_projects_root_is_importable(write: Write, tmp_path: Path) -> None:
    write("shared_tr.py", "X = 7\n")
    write("work/music.py", f"{HEAD}from shared_tr import X\n@job\ndef music(): return X\n")
    found = discover(["work"], tmp_path)
    assert found.registry.jobs["music"].fn() == 7
    assert {file.name for file in found.files} == {"music.py", "shared_tr.py"}


def test_a_folder_named_like_a_library_harms_nobody(write: Write, tmp_path: Path) -> None:
    write("email/sends.py", a_job("sends"))
    write("work/json.py", a_job("jason"))
    found = discover(["email", "work"], tmp_path)
    import email
    import json

    assert (names(found), found.problems) == (["jason", "sends"], [])
    assert email.message_from_string("Subject: x\n\n")["Subject"] == "x"
    assert json.loads("1") == 1


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("x = 1\ndef (\n", 2, "SyntaxError"),
        ("import nowhere_tr\n", 1, "ModuleNotFoundError: No module named 'nowhere_tr'"),
        ("\n\n1 / 0\n", 3, "ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("raise BaseException('odd')\n", 1, "BaseException: odd"),
        (f"{HEAD}\n@job(retry=-1)\ndef x(): ...\n", 4, "option retry"),
        (f"{HEAD}@job(cron='@daily')\ndef x(n: int): ...\n", 3, "n: is required"),
        (f"{HEAD}@job\ndef x(n: 'Nowhere'): ...\n", 3, "Nowhere"),
        (f"{HEAD}@job\ndef works(): ...\n", 3, 'two jobs are named "works"'),
        ("x = '\x00'\n", 0, "null bytes"),
    ],
)
def test_a_broken_file_is_named_with_its_line_and_the_others_work(
    write: Write, tmp_path: Path, text: str, line: int, says: str
) -> None:
    write("work/a_works.py", a_job("works"))
    file = write("work/broken.py", text)
    found = discover(["work"], tmp_path)
    assert names(found) == ["works"]
    (problem,) = found.problems
    assert (problem.file, problem.line) == (str(file), line)
    assert says in problem.text
    assert file in found.files


def test_what_only_looks_like_a_job_file_is_named_and_the_others_work(write: Write, tmp_path: Path) -> None:
    folder = write("work/music.py", a_job("music")).parent
    (folder / "gone.py").symlink_to("/nowhere")
    (folder / "itself.py").symlink_to("itself.py")
    os.mkfifo(folder / "pipe.py")
    os.mkfifo(folder / "pipe")
    (folder / "caf\udce9.py").write_text(a_job("coffee"))
    (folder / "gone").symlink_to("/nowhere")
    (folder / ".#lock.py").symlink_to("someone@host.123")  # as Emacs does
    found = discover(["work"], tmp_path)
    assert names(found) == ["music"]
    assert problems(found) == [
        ("caf\\udce9.py", 0, "has a name that is not UTF-8"),
        ("gone.py", 0, "is a link that leads nowhere"),
        ("itself.py", 0, "is a link that leads nowhere"),
        ("pipe.py", 0, "is not a regular file"),
    ]


@pytest.mark.parametrize("entry", ["work_tr", "work_tr.inner", "work_*"])
def test_links_between_folders_are_followed_once(write: Write, tmp_path: Path, entry: str) -> None:
    folder = write("work_tr/inner/music.py", a_job("music")).parent
    write("work_tr/inner/__init__.py", "")
    (folder / "here").symlink_to(".")
    (folder / "up").symlink_to("..")
    found = discover([entry], tmp_path)
    assert (names(found), found.problems) == (["music"], [])


def test_a_package_may_have_a_link_to_a_file_elsewhere(write: Write, tmp_path: Path) -> None:
    write("pack_tr/inner/__init__.py", "")
    (tmp_path / "pack_tr/inner/linked.py").symlink_to(write("other_tr/real.py", a_job("linked")))
    found = discover(["pack_tr.inner"], tmp_path)
    assert (names(found), found.problems) == (["linked"], [])


@pytest.mark.parametrize("method", ["iterdir", "is_dir"])
def test_a_folder_that_may_not_be_read_holds_back_no_other(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    write("work/closed/secret.py", a_job("secret"))
    write("work/music.py", a_job("music"))
    real = getattr(Path, method)

    def refuse(path: Path) -> Any:
        if path.name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(Path, method, refuse)
    assert (names(found := discover(["work"], tmp_path)), found.problems) == (["music"], [])
    named = discover(["work/closed", "work"], tmp_path)
    assert names(named) == ["music"]
    assert [one.text for one in named.problems] == [f"jobs: {tmp_path}/work/closed: Permission denied"]


def test_a_file_that_an_editor_removes_meanwhile_is_none(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write("work/music.py", a_job("music")).parent
    listed = [folder / "4913.py", folder / "4913", folder / "music.py"]
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(listed))
    assert (names(found := discover(["work"], tmp_path)), found.problems) == (["music"], [])


def test_two_jobs_of_one_name_are_named_with_both_places(write: Write, tmp_path: Path) -> None:
    first, second = write("work/a.py", a_job("same")), write("work/b.py", a_job("same"))
    (problem,) = discover(["work"], tmp_path).problems
    assert f"{first}:3 and {second}:3" in problem.text


def test_a_broken_neighbour_is_named_where_it_is_broken(write: Write, tmp_path: Path) -> None:
    write("work/a_user.py", "import b_broken\n")
    write("work/b_broken.py", "\n1 / 0\n")
    found = discover(["work"], tmp_path)
    assert [one[:2] for one in problems(found)] == [("b_broken.py", 2), ("b_broken.py", 2)]
    assert "while loading" in found.problems[0].text


def test_a_job_imported_by_another_file_is_no_twin(write: Write, tmp_path: Path) -> None:
    write("work/a.py", f"{HEAD}from work.b import base, events\n")
    write("work/b.py", f"{a_job('base')}events = pipe('events')\n")
    found = discover(["work"], tmp_path)
    assert (names(found), list(found.registry.pipes), found.problems) == (["base"], ["events"], [])


def test_an_entry_that_leads_nowhere_is_a_problem(write: Write, tmp_path: Path) -> None:
    found = discover(["gone_tr", "gone_tr.inner", "no*.py"], tmp_path)
    assert [text for _, _, text in problems(found)] == [
        f'jobs: "gone_tr" is not a module, package, folder or file in {tmp_path}',
        f'jobs: "gone_tr.inner" is not a module, package, folder or file in {tmp_path}',
        'jobs: no file matches "no*.py"',
    ]


def test_a_module_in_a_broken_package_is_a_problem(write: Write, tmp_path: Path) -> None:
    file = write("bad_tr/__init__.py", "1 / 0\n")
    write("bad_tr/inner.py", a_job("inner"))
    (problem,) = discover(["bad_tr.inner"], tmp_path).problems
    assert (problem.file, problem.line) == (str(file), 1)


def test_a_main_guard_is_respected(write: Write, tmp_path: Path) -> None:
    write("work/script.py", f"{a_job('script')}if __name__ == '__main__':\n    raise SystemExit\n")
    assert discover(["work"], tmp_path).problems == []


def test_an_edit_within_the_same_second_is_seen(write: Write, tmp_path: Path) -> None:
    write("helper_tr.py", "Y = 1\n")
    write("work/music.py", a_job("music", "1"))
    assert discover(["work"], tmp_path).registry.jobs["music"].fn() == 1
    write("work/music.py", a_job("music", "2"))
    assert discover(["work"], tmp_path).registry.jobs["music"].fn() == 2
    assert list(tmp_path.rglob("*.pyc")) == []


def test_a_folder_outside_the_project_works(write: Write, tmp_path: Path) -> None:
    write("outside/tools/a_tool.py", f"{HEAD}import b_tool\n@job\ndef tool(): return b_tool.X\n")
    write("outside/tools/b_tool.py", "X = 3\n")
    write("project/x.txt", "")
    found = discover([str(tmp_path / "outside/tools"), "../outside/tools"], tmp_path / "project")
    assert (names(found), found.problems) == (["tool"], [])
    assert found.registry.jobs["tool"].fn() == 3


def test_types_of_a_job_file_can_be_resolved(write: Write, tmp_path: Path) -> None:
    text = f"from __future__ import annotations\nfrom dataclasses import dataclass\n{HEAD}"
    write("work/typed.py", f"{text}@job\ndef typed(song: Song): ...\n@dataclass\nclass Song:\n    title: str\n")
    found = discover(["work"], tmp_path)
    assert found.problems == []
    assert found.registry.jobs["typed"].prepare({"title": "a"}).input == '{"title":"a"}'


def test_another_project_takes_the_place_of_the_first(write: Write, tmp_path: Path) -> None:
    for project in ("a", "b"):
        write(f"{project}/work/part.py", f"X = '{project}'\n")
        write(f"{project}/work/music.py", f"{HEAD}from work.part import X\n@job\ndef music(): return X\n")
    first, second = discover(["work"], tmp_path / "a"), discover(["work"], tmp_path / "b")
    assert (first.problems, second.problems) == ([], [])
    assert (first.registry.jobs["music"].fn(), second.registry.jobs["music"].fn()) == ("a", "b")
    assert str(tmp_path / "a") not in sys.path
