"""No verb: the terminal app. The model is found and checked before the screen is taken."""

import argparse
import sys

from localseek.commands.preparing import completed, find_runnable_model
from localseek.errors import UsageError
from localseek.system.environment import terminal_kind
from localseek.terminal import settings
from localseek.terminal.messages import is_terminal, prepare_streams

EXAMPLES = """examples:
  localseek
  localseek --model v2-lite --temperature 0.6
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the app."""
    settings.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Open the app."""
    prepare_streams()
    _need_a_terminal()
    chosen = settings.options_from(arguments)
    path = find_runnable_model(chosen.model)
    chosen, _ = completed(chosen, path)
    from tui.app import run as run_app

    return run_app(path, chosen)


def _need_a_terminal() -> None:
    """Raise UsageError where the app would draw for nobody, or on what cannot show it."""
    others = "Use localseek chat or localseek ask, which need none."
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError("The app needs a terminal for its input and output.", others)
    if terminal_kind() == "dumb":
        raise UsageError("This terminal cannot show the app (TERM is dumb or not set).", others)
