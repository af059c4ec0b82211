"""Where a field may stand in a string for the shell; and that nowhere there a value is ever executed."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskrun.model.shell_syntax import check_fields
from taskrun.model.templates import in_shell, parse_template

ALLOWED = [
    "printf %s {p}",
    "printf %s --x={p}",
    "printf %s {p}{p}",
    'printf "%s" {p}',
    "printf '%s' {p} # a comment, isn't it",
    "# isn't it\nprintf %s {p}",
    'printf %s "$(printf %s {p})"',
    'x=$(printf %s {p}); printf %s "$x"',
    "(printf %s {p})",
    'x={p}; printf %s "$x"',
    'x=a#{p}; printf %s "$x"',
    'for i in {p}; do printf %s "$i"; done',
    "case {p} in *) printf %s {p};; esac",
    "if [ {p} = x ]; then :; fi; printf %s {p}",
    'printf "\\"%s" {p}',
    "printf %s \\\\{p}",
    "printf %s $((1 + (2))) {p}",
    'printf %s "${{HOME}}" {p}',
    "printf %s `echo x` {p}",
    "cat > /dev/null <<E; printf %s {p}\nit's\nE\n",
    "{{ printf %s {p}; }}",
    "printf %s {p} 2>&1 | cat",
    "printf %s $(printf hi)#{p}",
    "printf %s $((1))#{p}",
    "printf %s `echo x`#{p}",
    "printf %s \\;#{p}",
    "printf %s a\\\n#{p}",
    "printf %s \\\n{p}",
    "printf %s \\${p}",
    "(printf %s {p})#it's a comment",
    "f()\n{{ printf %s {p}; }}\nf",
    "echo a\n(printf %s {p})#it's a comment",
]
REFUSED = {
    "echo '{p}'": "inside quotes",
    'echo "{p}"': "inside quotes",
    'echo "it\'s {p}"': "inside quotes",
    "it's {p}": "inside quotes",
    '"$(echo "{p}")"': "inside quotes",
    "\"$(echo '{p}')\"": "inside quotes",
    'echo "$(x "a" {p} "b {p}")"': "inside quotes",
    "echo `cat {p}`": "inside backquotes",
    'echo "`cat {p}`"': "inside backquotes",
    "${{x:-{p}}}": "inside ${…}",
    '"${{x:-{p}}}"': "inside ${…}",
    "$(( {p} + 1 ))": "inside arithmetic",
    "$((1 + ({p})))": "inside arithmetic",
    "(( {p} ))": "inside arithmetic",
    "echo a\n(( {p} ))": "inside arithmetic",
    "a=(( {p} ))": "inside arithmetic",
    "$[ {p} ]": "not every shell reads alike",
    "# {p}": "in a comment",
    "echo x # {p}": "in a comment",
    "\\{p}": "after a backslash",
    "${p}": "stands after a $",
    "cat <<{p}": "cannot be the end of a here-document",
    "cat <<E\n{p}\nE\n": "here-document",
    "cat <<'E'\n{p}\nE\n": "here-document",
    "cat <<-E\nx\nE\necho {p}": "here-document",
    'cat <<"$({p})"\nx\n': "here-document",
    'cat <<E"a\n$({p})"\nx\n': "here-document",
    "cat <<E$({p})\nx\n": "here-document",
    "echo $'x' {p}": "not every shell reads alike",
    'echo $"x" {p}': "not every shell reads alike",
    '"$(case x in a) echo "hi {p}";; esac)"': "behind a case within parentheses",
    "echo ${{x:-'a'}} {p}": "behind quotes within",
    "echo $(echo hi)#'\n{p}\n'": "inside quotes",
    "echo $((1))#'\n{p}\n'": "inside quotes",
    "echo `echo hi`#'\n{p}\n'": "inside quotes",
    "echo \\;#'\n{p}\n'": "inside quotes",
    "echo \\ #'\n{p}\n'": "inside quotes",
    "echo a\\\n#'\n{p}\n'": "inside quotes",
    "echo a\u00a0#'\n{p}\n'": "inside quotes",
    "echo a\r#'\n{p}\n'": "inside quotes",
    "echo \\\n# {p}": "in a comment",
    "(echo a)# {p}": "in a comment",
    "cat <(echo hi)# {p}": "behind )#",
    "a=(1 2)# {p}": "behind )#",
    "cat <((echo hi)) {p}": "behind (( within a word",
    "$\\\n{p}": "stands after a $",
    "echo $\\\n'a\\' {p}": "within an operator",
    "cat <\\\n<E\n{p}\nE\n": "within an operator",
    "cat <<\\\n{p}": "cannot be the end of a here-document",
    f"cat <<{' ' * 50}{{p}}": "cannot be the end of a here-document",
    '"$(ca\\\nse x in a) echo "hi {p}";; esac)"': "behind a case within parentheses",
}


@pytest.mark.parametrize("command", ALLOWED)
def test_a_field_that_is_a_word_is_allowed(command: str) -> None:
    check_fields(parse_template(command, {"p"}))


@pytest.mark.parametrize(("command", "said"), REFUSED.items())
def test_a_field_that_the_shell_would_read_in_another_way_is_refused(command: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^\{p\} ") as caught:
        check_fields(parse_template(command, {"p"}))
    assert said in str(caught.value)


def test_what_stands_where_no_field_is_does_not_matter() -> None:
    check_fields(parse_template("echo {p}; echo \"it's $'x' `y` $((1)) # \" <<E\n\"'\nE\n", {"p"}))


HOSTILE = st.text("ab '\"`$(){};&|<>\\\n#*?~!-=\t\x7f\x80é\udce9\udc81\udc88", max_size=20)


SHELLS = ["/bin/sh", *filter(None, [shutil.which("bash"), shutil.which("zsh")])]


@given(HOSTILE, st.sampled_from(ALLOWED), st.sampled_from(SHELLS))
@example("$(touch pwned)", ALLOWED[0], SHELLS[0])
@example("'; touch pwned; '", ALLOWED[0], SHELLS[0])
@example("-n", ALLOWED[0], SHELLS[0])
@settings(max_examples=300, deadline=None)
def test_no_value_is_read_as_code(value: str, command: str, shell: str) -> None:
    """A marker before and after every field: if quoting failed, they would be elsewhere, or the shell would complain."""
    marked = f"A{value}Z"
    script = in_shell(parse_template(command, {"p"}), {"p": marked})
    done = subprocess.run(
        [shell, "-c", script.encode("utf-8", "surrogateescape")], capture_output=True, cwd="/", check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert marked.encode("utf-8", "surrogateescape") in done.stdout
