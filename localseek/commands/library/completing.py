"""A parser as a shell's script of completions, by shtab, and what shtab does not know of models.

Takes the parser of all verbs, gives text. Models are asked for while one types, with
`localseek models list --names`, which says nothing where it fails.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shtab

from localseek.errors import LocalseekError

FILES = {"FILE", "SOURCE", "IN", "OUT.gguf", "OUT.jsonl", "PATH", "CHECKPOINT"}  # metavars
NAMES = "localseek models list --names 2>/dev/null"
BASH = f"""
# $1: what was typed. Paths are files, all else is a model's name, or a file if it is none.
_localseek_models() {{
  case $1 in
    */*|.*|'~'*) compgen -f -- "$1" ;;
    *) compgen -W "$({NAMES})" -- "$1" || compgen -f -- "$1" ;;
  esac
}}
"""
# Names hold ':' and '@', at which bash cuts words before it asks: they are put together again, and
# what stands before the last cut is taken off the answers, since bash replaces only what follows.
BASH_WORDS = r"""
_localseek() {
  local words=() rest=$COMP_LINE index trimmed word at=0
  for ((index = 0; index < ${#COMP_WORDS[@]}; index++)); do
    word=${COMP_WORDS[index]}
    trimmed=${rest#"${rest%%[![:space:]]*}"}
    if [[ $index -gt 0 && $trimmed == "$rest" && $word == "=" && ${words[at]} == --* ]]; then
      words+=("")  # --option=value: the value is a word of its own
    elif [[ $index -gt 0 && $trimmed == "$rest" ]]; then
      words[at]+=$word
    else
      words+=("$word")
    fi
    at=$((${#words[@]} - 1))
    rest=${trimmed#"$word"}
    [[ $index -eq $COMP_CWORD ]] && break
  done
  local COMP_CWORD=$at COMP_WORDS=("${words[@]}") full=${words[at]} kept=""
  _shtab_localseek
  [[ $COMP_WORDBREAKS == *:* && $full == *:* ]] && kept=${full%"${full##*:}"}
  # readline takes '@' as the beginning of a word and not as the end of one
  trimmed=${full%@*}
  [[ $COMP_WORDBREAKS == *@* && $full == *@* && ${#trimmed} -ge ${#kept} ]] && kept=$trimmed
  for index in "${!COMPREPLY[@]}"; do
    COMPREPLY[index]=${COMPREPLY[index]#"$kept"}
  done
  [[ $full == */* ]] && compopt -o filenames 2>/dev/null
  return 0
}
complete -o bashdefault -F _localseek localseek
"""
ZSH = f"""
_localseek_models() {{
  local -a names
  names=(${{(f)"$({NAMES})"}})
  compadd -a names
  _files
}}
"""
FISH = f"""
function __localseek_models
  {NAMES}
  __fish_complete_path (commandline -ct)
end
"""
PREAMBLES = {"bash": BASH, "zsh": ZSH, "fish": FISH}
MODELS = {"bash": "_localseek_models", "zsh": "_localseek_models", "fish": "(__localseek_models)"}


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Give the script that a shell is to read; raises LocalseekError where shtab has none."""
    for action, prog in _actions(parser):
        complete: Any = None
        if action.metavar == "MODEL" or (prog.startswith("models") and action.metavar == "NAME"):
            complete = MODELS
        elif action.metavar in FILES or action.type is Path:
            complete = shtab.FILE
        if complete is not None:
            action.complete = complete  # type: ignore[attr-defined]  # where shtab looks for it
    try:
        text = shtab.complete(parser, shell, preamble=PREAMBLES[shell])
    except NotImplementedError as error:
        raise LocalseekError(
            f"This shtab has no completion for {shell}.", "Install a newer one: shtab 1.8."
        ) from error
    if shell == "zsh":  # of several models shtab 1.13 lets zsh complete the first only
        text = text.replace('"(*):', '"*:')
    return text + BASH_WORDS if shell == "bash" else text


def _actions(
    parser: argparse.ArgumentParser, verb: str = ""
) -> Iterator[tuple[argparse.Action, str]]:
    """Give all arguments, each with the verb that it belongs to."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _actions(inner, f"{verb} {name}".strip())
        else:
            yield action, verb
