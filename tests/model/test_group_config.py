"""The table `[groups]`, and the groups of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskrun.model.config import load
from taskrun.model.config_sources import effective
from taskrun.model.errors import ConfigError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "taskrun.toml"
    path.write_text(text)
    return path


def test_a_command_has_the_slots_of_its_group_unless_it_says_them_itself(tmp_path: Path) -> None:
    jobs = "".join(f"[jobs.{name}]\ncommand = 'true'\n{more}\n" for name, more in [
        ("a", "group = 'g'"), ("b", "group = 'g'\nslots = 5"), ("c", "group = 'other'"), ("d", "")
    ])  # fmt: skip
    path = written(tmp_path, f"[groups]\ng = 3\n{jobs}")
    config = load(path, {})
    assert config.groups == {"g": 3}
    assert [(job.group, job.slots) for job in config.declared.commands] == [("g", 3), ("g", 5), ("other", 1), (None, 1)]
    shown = effective(path, {})["groups"]["g"]
    assert (shown.value, shown.line) == (3, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[groups]\ng = 0", r"\[groups\] g must be a whole number of 1 or more"),
        ('[groups]\n"a\\nb" = 1', r"\[groups\] a group is named by"),
        ("groups = 1", "groups"),
        ("[jobs.a]\ncommand = 'true'\nslots = 2", "slots does nothing without group"),
        ("[jobs.a]\ncommand = 'true'\ngroup = 'g'\nconcurrency = 2", "both group and concurrency"),
        ("[jobs.a]\ncommand = 'true'\ngroup = ' '", "group must be a name"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(written(tmp_path, text), {})
