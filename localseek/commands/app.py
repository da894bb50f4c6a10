"""No verb: the terminal app. The model is found and checked before the screen is taken."""

import argparse

from localseek.commands.preparing import find_runnable_model
from localseek.terminal import settings
from localseek.terminal.messages import prepare_streams

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
    chosen = settings.options_from(arguments)
    path = find_runnable_model(chosen.model)
    from tui.app import run as run_app

    return run_app(path, chosen)
