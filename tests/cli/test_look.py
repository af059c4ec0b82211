"""How a screen becomes text: the styles that a terminal gets are those that rich itself would send."""

from __future__ import annotations

from io import StringIO

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from taskrun.cli.screens.look import Look, printed


@given(
    st.sampled_from(["", "dim"]),
    st.lists(
        st.tuples(st.text("ab\t\n é漢", max_size=6), st.sampled_from(["", "bold", "green", "red bold"])), max_size=6
    ),
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from(["yellow", "bold"])),
)
def test_styles_are_sent_as_rich_would_send_them(
    style: str, parts: list[tuple[str, str]], over: tuple[int, int, str]
) -> None:
    text = Text("a", style)
    for part, its_style in parts:
        text.append(part, its_style)
    start, end, styled = over
    text.stylize(styled, start, end)
    file = StringIO()
    Console(
        file=file, color_system="standard", force_terminal=True, highlight=False, soft_wrap=True, _environ={}
    ).print(text)
    assert printed(text, Look(80, colour=True)) == file.getvalue()


def test_a_line_is_coloured_whole_in_itself() -> None:
    assert printed(Text("a\nb", "green"), Look(80, colour=True)) == "\x1b[32ma\x1b[0m\n\x1b[32mb\x1b[0m\n"
