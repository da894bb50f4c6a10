import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import programs as fake
from fakes.gguf_file import write_dense

ROOT = Path(__file__).parents[2]
Complete = Callable[..., list[str]]

BASH = r"""
source ./script
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=() word=""
for ((index = 0; index < ${#1}; index++)); do  # into words, as readline does
  letter=${1:index:1}
  case $letter in
    ' ') [[ -n $word ]] && COMP_WORDS+=("$word"); word="" ;;
    [:=]) [[ -n $word ]] && COMP_WORDS+=("$word"); COMP_WORDS+=("$letter"); word="" ;;
    *) word+=$letter ;;
  esac
done
[[ -n $word || $letter == ' ' ]] && COMP_WORDS+=("$word")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_localseek
printf '%s\n' "${COMPREPLY[@]}"
"""


def needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


@pytest.fixture
def world(home: Path, environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A `localseek` on the path, and models to complete."""
    program = tmp_path / "bin" / "localseek"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m localseek "$@"\n')
    program.chmod(0o755)
    (home / "user").mkdir()
    write_dense(home / "models" / "v2-lite-Q4_K_M.gguf")
    write_dense(home / "models" / "v2-lite-Q8_0.gguf")
    fake.lm_studio(home / "user", "pub/r/v2-lite-Q8_0.gguf", **{"general.name": "another"})
    fake.ollama(home / "user/ollama", "deepseek-r1", "8b")
    (tmp_path / "mine.gguf").touch()
    return {**environment, "PATH": f"{program.parent}:{os.environ['PATH']}", "ZDOTDIR": str(home)}


def made(shell: str, world: dict[str, str], folder: Path) -> Path:
    script = folder / "script"
    words = [sys.executable, "-m", "localseek", "completion", shell]
    script.write_bytes(subprocess.run(words, env=world, check=True, capture_output=True).stdout)
    return script


def answers(words: list[str], world: dict[str, str], folder: Path) -> list[str]:
    done = subprocess.run(
        words, env=world, cwd=folder, check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_verbs_options_models_and_files(world, tmp_path):
    bash = needs("bash")
    made("bash", world, tmp_path)
    for line, expected in {
        "localseek mod": ["models"],
        "localseek models re": ["rename", "remove"],
        "localseek plan v2-lite:q8_0 --cpu": ["--cpu-experts"],
        "localseek ask -m v2": ["v2-lite:q4_k_m", "v2-lite:q8_0", "v2-lite:q8_0@lmstudio"],
        "localseek ask -m v2-lite:": ["q4_k_m", "q8_0", "q8_0@lmstudio"],
        "localseek ask -m v2-lite:q8_0@lm": ["@lmstudio"],
        "localseek ask --model=deep": ["deepseek-r1:8b"],
        "localseek --model na": ["nano"],
        "localseek models remove v2-lite:q8_0 tin": ["tiny"],
        "localseek plan ./mi": ["./mine.gguf"],
        "localseek plan min": ["mine.gguf"],
        "localseek ask --schema min": ["mine.gguf"],
        "localseek completion ": ["bash", "zsh", "fish"],
    }.items():
        assert answers([bash, "-c", BASH, "bash", line], world, tmp_path) == expected, line


def test_bash_completes_nothing_and_says_nothing_where_localseek_is_gone(world, tmp_path):
    bash = needs("bash")
    made("bash", world, tmp_path)
    without = {**world, "PATH": "/usr/bin:/bin"}
    assert answers([bash, "-c", BASH, "bash", "localseek ask -m v2"], without, tmp_path) == []


def test_fish_completes_verbs_models_and_files(world, tmp_path):
    fish = needs("fish")
    made("fish", world, tmp_path)
    for line, expected in {
        "localseek mod": "models",
        "localseek ask -m v2-lite:q4": "v2-lite:q4_k_m",
        "localseek models remove v2-lite:q8_0 deep": "deepseek-r1:8b",
        "localseek plan ./mi": "./mine.gguf",
    }.items():
        found = answers([fish, "-c", f"source script; complete -C '{line}'"], world, tmp_path)
        assert found[0] == expected, line


def test_zsh_can_read_its_script_and_completes_models(world, tmp_path):
    zsh = needs("zsh")
    script = made("zsh", world, tmp_path)
    subprocess.run([zsh, "-n", script], check=True)
    script.rename(tmp_path / "_localseek")
    program = f"""
    zmodload zsh/zpty
    zpty shell {zsh} -f -i
    zpty -w shell "PROMPT='% '; fpath=({tmp_path} \\$fpath); autoload -U compinit; compinit -u -D"
    zpty -w shell "bindkey '^I' complete-word; echo rea''dy"
    zpty -r -m shell line '*ready*'
    for typed in 'localseek models sho' 'localseek plan v2-lite:q4' \\
                 'localseek models remove tiny deep'; do
      zpty -n -w shell $typed$'\\t'
      zpty -r -m shell line '*(show|q4_k_m|deepseek-r1:8b)*' && print -r -- complete: $typed
      zpty -n -w shell $'\\C-u'
    done
    zpty -d shell
    """
    done = subprocess.run([zsh, "-f", "-c", program], env=world, cwd=tmp_path, check=True,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert [line for line in done.stdout.splitlines() if line.startswith("complete: ")] == [
        "complete: localseek models sho", "complete: localseek plan v2-lite:q4",
        "complete: localseek models remove tiny deep",
    ]  # fmt: skip


def test_a_script_is_one_json_object_too_and_other_shells_are_refused(run_cli):
    found = json.loads(run_cli("completion", "fish", "--json").out)
    assert found["shell"] == "fish" and "complete -c localseek" in found["script"]
    outcome = run_cli("completion", "tcsh")
    assert outcome.status == 2 and outcome.err.count("\n") == 1 and "'bash', 'zsh'" in outcome.err


def test_names_come_within_300_ms_of_processor_time(world):
    words = [sys.executable, "-P", "-m", "localseek", "models", "list", "--names"]
    before = os.times()
    done = subprocess.run(words, env=world, check=True, capture_output=True, text=True)
    after = os.times()
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 0.3
    assert "v2-lite:q4_k_m" in done.stdout.splitlines()


def test_names_import_nothing_heavy(world):
    program = (
        "import sys; sys.argv = ['localseek', 'models', 'list', '--names'];"
        "from localseek import cli; cli.main();"
        "heavy = {'numpy', 'rich', 'psutil', 'converters', 'shtab', 'localseek.placing.deciding'};"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], env=world, check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stderr == "set()\n"
