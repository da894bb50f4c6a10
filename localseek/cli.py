"""The command line: finds the verb, runs it, turns errors into one line and an exit status.

Verbs live in localseek/commands, one module each, imported only when called, so that `--help`
answers at once. Knows nothing about what a verb does.
"""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from localseek import __version__
from localseek.errors import LocalseekError, UsageError

INTERRUPTED = 130
VERBS = {
    "ask": "one answer to one prompt",
    "chat": "a plain line-by-line chat, for screen readers and dumb terminals",
    "batch": "many prompts from a JSON Lines file, resumable",
    "serve": "OpenAI's protocol for other programs on this machine",
    "convert": "a DeepSeek checkpoint → a quantized GGUF file, in one pass",
    "plan": "what of a model would go where on this machine, or another, and why",
    "bench": "how fast a model is here, with and without drafts, and what it takes",
    "pull": "download a checkpoint or a GGUF; the only verb that uses the internet",
    "models": "the models on this machine: list, show, verify, rename, remove",
    "history": "the saved conversations: list, search, show, export, rename, delete",
    "worker": "lend this machine to localseek on another, through llama.cpp's RPC",
    "doctor": "what works on this machine, what is missing and how to get it",
    "completion": "verbs, options, files and models completed by bash, zsh and fish",
}
WITH_WORDS = ("", "ask", "chat", "batch", "serve", "history")  # "": the app
HELP = f"""usage: localseek [VERB] [options]

Run DeepSeek models on this machine, offline. Without a verb the terminal app opens.

verbs:
{chr(10).join(f"  {verb:10} {summary}" for verb, summary in VERBS.items())}

options:
  --help     this text; `localseek VERB --help` tells more about a verb
  --version  the version

examples:
  localseek ask "What is 348 + 257?"
  localseek convert ./DeepSeek-V2-Lite v2-lite.gguf --type Q4_K_M
  localseek --model v2-lite.gguf
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors: one line, exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}.", f"{_near_choice(message)}See {self.prog} --help.")


def _near_choice(message: str) -> str:
    """Give argparse's choices that are near what was written, as a question."""
    found = re.search(r"invalid choice: '(.+)' \(choose from (.+)\)$", message)
    if found is None:
        return ""
    import difflib  # noqa: PLC0415  # `--help` needs none of it

    choices = [choice.strip("' ") for choice in found[2].split(",")]
    near = difflib.get_close_matches(found[1], choices, n=2, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def main(ready: Callable[[str], None] = lambda _verb: None) -> int:
    """Run the verb that the command line names and give the exit status.

    `ready` is called with the verb when all is loaded and it begins.
    """
    try:
        return _run(sys.argv[1:], ready)
    except LocalseekError as error:
        _complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except RuntimeError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            return INTERRUPTED  # it came while Python 3.11 made a class of an import
        raise
    except BrokenPipeError:  # the reader has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:  # a file or folder that no verb has a better word for
        place = f"{error.filename}: " if error.filename else ""
        _complain(f"{place}{error.strerror or error}.")
        return 1


def _run(words: list[str], ready: Callable[[str], None]) -> int:
    if words[:1] in (["--help"], ["-h"], ["help"]):
        print(HELP, end="")
        return 0
    if words[:1] == ["--version"]:
        print(f"localseek {__version__}")
        return 0
    verb = words[0] if words and not words[0].startswith("-") else ""
    if verb and verb not in VERBS:
        import difflib  # noqa: PLC0415  # `--help` needs none of it

        near = difflib.get_close_matches(verb, VERBS, n=1)
        offer = f"Did you mean {near[0]}? " if near else ""
        offer += f"The verbs are: {', '.join(VERBS)}."
        raise UsageError(f"There is no verb {verb!r}.", offer)
    module = importlib.import_module(f"localseek.commands.{verb or 'app'}")
    parser = Parser(
        prog=f"localseek {verb}".strip(),
        description=VERBS.get(verb),
        epilog=module.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.configure(parser)
    arguments = parser.parse_args(words[1:] if verb else words)
    ready(verb)
    _guard(verb)
    status = module.run(arguments)
    sys.stdout.flush()  # a reader that has left is noticed here and not at exit
    return int(status)


def _guard(verb: str) -> None:
    """Close what is on the disk to others, and the memory where words pass through it."""
    from localseek.store.history.leftovers import clear_away  # noqa: PLC0415  # `--help` needs none of it
    from localseek.system import paths, private  # noqa: PLC0415

    private.tighten(paths.home())
    clear_away(paths.home())
    if verb in WITH_WORDS:
        from localseek.system.dumps import keep_memory_private  # noqa: PLC0415

        keep_memory_private()


def _complain(text: str) -> None:
    from localseek.terminal.messages import complain  # noqa: PLC0415  # `--help` needs none of it

    complain(text)
