"""`taskrun completion`: the script for a shell; and `_complete`, which that script calls at every TAB."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import typer

from taskrun.cli.backend.described_jobs import did_you_mean
from taskrun.cli.commands.completion_candidates import SHELLS, complete
from taskrun.cli.common_options import take_project
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.sanitize import cell
from taskrun.cli.session import Session

app = typer.Typer(rich_markup_mode=None, add_completion=False)
PATIENCE = 3.0  # seconds after which a TAB offers nothing

# The words are taken from the line, since bash itself also splits them at `=`, `:` and `@`. It expects what follows the last
# of these characters, and an `@` with it.
BASH = """\
_taskrun() {
    local line=${COMP_LINE:0:COMP_POINT} words cur value rest
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cur=${words[${#words[@]}-1]}
    rest=${cur##*[=:]}
    [[ $rest == *@* ]] && rest=@${rest##*@}
    COMPREPLY=()
    while IFS=$'\\t' read -r value _; do
        [[ -n $value ]] && COMPREPLY+=("${value#"${cur%"$rest"}"}")
    done < <("${words[0]}" _complete -- "${words[@]:1}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace
    return 0
}
complete -o default -F _taskrun taskrun
"""
ZSH = """\
#compdef taskrun
_taskrun() {
    local -a found
    local value about
    while IFS=$'\\t' read -r value about; do
        found+=("${value//:/\\\\:}${about:+:$about}")
    done < <("${words[1]}" _complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( $#found )); then
        _describe -V taskrun found
    else
        _files
    fi
}
if [[ $funcstack[1] == _taskrun ]]; then
    _taskrun "$@"
else
    compdef _taskrun taskrun
fi
"""
FISH = """\
function __taskrun_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] _complete -- $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c taskrun -f -a '(__taskrun_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
HOW = {
    "bash": 'add to ~/.bashrc:  eval "$(taskrun completion bash)"',
    "zsh": 'add to ~/.zshrc, after compinit:  eval "$(taskrun completion zsh)"',
    "fish": "taskrun completion fish > ~/.config/fish/completions/taskrun.fish",
}


@app.command()
def completion(shell: str = typer.Argument(..., metavar="SHELL", help="bash, zsh or fish.")) -> Any:
    """Print the script that lets a shell complete jobs, runs, options and values.

    Example: eval "$(taskrun completion bash)"
    """
    if shell not in SCRIPTS:
        raise Stop(
            Code.USAGE,
            f'no completion for "{shell}"',
            hint=did_you_mean(shell, SHELLS, "choose one of: bash, zsh, fish"),
        )
    return partial(script, shell)


async def script(shell: str, session: Session) -> int:
    """Prints a script, and on a terminal how to install it."""
    session.data(SCRIPTS[shell])
    if session.facts.out_tty:
        session.say(f"# {HOW[shell]}")
    return Code.DONE


@app.command("_complete", hidden=True, add_help_option=False, context_settings={"ignore_unknown_options": True})
def _complete(words: list[str] = typer.Argument(None)) -> Any:  # noqa: B008
    """Print the candidates for the last word, one per line: value, tab, description."""
    return partial(offer, tuple(words or ()))


async def offer(words: tuple[str, ...], session: Session) -> int:
    """Prints the candidates. Errors are not shown, since somebody is typing."""
    try:
        session.warned = True
        rest, config, user = take_project(words[:-1])
        session.config_file, session.user = session.config_file or config, session.user or user
        async with asyncio.timeout(PATIENCE):
            found = await complete([*rest, *words[-1:]], session)
    except Exception:
        return Code.DONE
    session.data("".join(f"{cell(value)}\t{cell(about)}\n" for value, about in found))
    return Code.DONE
