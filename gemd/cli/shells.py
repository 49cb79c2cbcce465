"""The scripts that teach bash, zsh and fish to complete our commands."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLE: Final = "_GEMCTL_COMPLETE"
"""Set by the scripts for the process that answers them: the shell, and `_complete`."""

_BASH: Final = """\
# Completion of {name} for bash, 3.2 or newer; bash-completion is not needed.
# In ~/.bashrc: eval "$({command} completion bash)"
_gemctl_complete() {{
    local line files= file
    COMPREPLY=()
    # What is typed goes along as it is: its quotes are taken off, and nothing in it is run.
    while IFS= read -r line; do
        case $line in
            plain,*) COMPREPLY+=("${{line#plain,}}") ;;
            file,) files=1 ;;
        esac
    done <<< "$(_GEMCTL_COMPLETE=bash_complete {command} -- "$2" "${{COMP_LINE:0:COMP_POINT}}" \\
        < /dev/null 2> /dev/null)"
    [[ -n $files ]] || return 0
    if (( ! ${{#COMPREPLY[@]}} )); then
        compopt -o default 2> /dev/null
    elif compopt -o filenames 2> /dev/null && ! shopt -q failglob; then
        # With a name among the possibilities, what is typed has no mark that a shell knows.
        for file in "$2"*; do
            [[ -e $file ]] && COMPREPLY+=("$file")
        done
    fi
    return 0
}}
if type compopt > /dev/null 2>&1; then
    complete -F _gemctl_complete {names}
else
    complete -o default -F _gemctl_complete {names}
fi
"""

_ZSH: Final = """\
#compdef {names}
# Completion of {name} for zsh.
# In ~/.zshrc: eval "$({command} completion zsh)"
# or, as a file: {command} completion zsh > "${{fpath[1]}}/_{name}"
_gemctl_complete() {{
    local line files=
    local -a lines plain described words_before
    (( CURRENT > 2 )) && words_before=("${{(@Q)words[2,CURRENT-1]}}")
    # What is typed goes along as it is: its quotes are taken off, and nothing in it is run.
    lines=("${{(@f)$(_GEMCTL_COMPLETE=zsh_complete {command} -- "${{words_before[@]}}" \\
        "${{(Q)PREFIX}}" < /dev/null 2> /dev/null)}}")
    for line in "${{lines[@]}}"; do
        case $line in
            (file,) files=1 ;;
            (plain,*$'\\t'*)
                line=${{line#plain,}}
                described+=("${{${{line%%$'\\t'*}}//:/\\\\:}}:${{line#*$'\\t'}}") ;;
            (plain,*) plain+=("${{line#plain,}}") ;;
        esac
    done
    [[ $PREFIX == -*=* ]] && compset -P 1 '*='
    (( $#described )) && _describe -V {name} described
    (( $#plain )) && compadd -a plain
    [[ -n $files ]] && _files
    return 0
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _gemctl_complete "$@"
else
    (( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit -i }}
    compdef _gemctl_complete {names}
fi
"""

_FISH: Final = """\
# Completion of {name} for fish.
# {command} completion fish > ~/.config/fish/completions/{name}.fish
function __gemctl_ask
    # Both ways below ask; once is enough, until the line or what went before it changes.
    set -l line (commandline -cp)
    set -q __gemctl_line; and test "$__gemctl_line" = "$line"; and return
    set -g __gemctl_line "$line"
    set -l words (commandline -opc)
    set -e words[1]
    set -l raw (commandline -ct)
    set -l begin (string unescape -- $raw; or printf '%s' $raw)
    # What is typed goes along as it is: nothing in it is run.
    set -g __gemctl_answer (env _GEMCTL_COMPLETE=fish_complete {command} -- $words "$begin" \
        < /dev/null 2> /dev/null)
end
function __gemctl_forget --on-event fish_prompt
    set -e __gemctl_line
end
function __gemctl_words
    __gemctl_ask
    string replace -fr '^plain,' '' -- $__gemctl_answer
end
function __gemctl_files
    __gemctl_ask
    contains file, -- $__gemctl_answer
end
{registered}
"""

SCRIPTS: Final[Mapping[str, str]] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str, program: Sequence[str], name: str) -> str:
    """The script of a shell.

    Args:
        shell: A key of `SCRIPTS`.
        program: What answers, as a command with absolute paths: what is typed may be a path that
            the shell cannot call as it is, or a program in a folder of somebody else.
        name: What the user calls it.

    """
    names = list(dict.fromkeys(("gemctl", name)))
    quote = _fish_quoted if shell == "fish" else shlex.quote
    completed = " ".join(f"--command {quote(each)}" for each in names)
    return SCRIPTS[shell].format(
        name=_plain(name),
        names=" ".join(quote(each) for each in names),
        command=" ".join(quote(each) for each in program),
        registered=f"complete {completed} --no-files --arguments '(__gemctl_words)'\n"
        f"complete {completed} --condition __gemctl_files --force-files",
    )


def _plain(name: str) -> str:
    """A name as it may stand in a comment or be that of a file."""
    return PurePath(name).name if name.isprintable() and shlex.quote(name) == name else "gemctl"


def _fish_quoted(text: str) -> str:
    if shlex.quote(text) == text:
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
