"""`localseek completion`: a script that lets a shell complete verbs, options, files and models."""

import argparse
import importlib
import json

from localseek.terminal.messages import prepare_streams

EXAMPLES = """examples:
  localseek completion bash > ~/.local/share/bash-completion/completions/localseek
  localseek completion zsh > ~/.zfunc/_localseek
  localseek completion fish > ~/.config/fish/completions/localseek.fish
"""
SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    prepare_streams()
    from localseek.commands.library import completing

    text = completing.script(whole_parser(), arguments.shell)
    print(json.dumps({"shell": arguments.shell, "script": text}) if arguments.json else text)
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Give one parser of all verbs, each with its own options, and of the app's."""
    from localseek.cli import VERBS

    parser = argparse.ArgumentParser(prog="localseek")
    parser.add_argument("--version", action="store_true", help="the version")
    importlib.import_module("localseek.commands.app").configure(parser)
    verbs = parser.add_subparsers(metavar="VERB")
    for verb, summary in VERBS.items():
        inner = verbs.add_parser(verb, help=summary, description=summary)
        importlib.import_module(f"localseek.commands.{verb}").configure(inner)
    return parser
