"""No verb: the terminal app. The model is found and checked before the screen is taken."""

import argparse
from dataclasses import fields

from localseek import settings
from localseek.commands.preparing import find_runnable_model
from localseek.messages import prepare_streams

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
    from tui.options import Options

    names = {field.name for field in fields(Options)} & {field.name for field in fields(chosen)}
    options = Options(
        sampling=chosen.request(()).sampling, **{name: getattr(chosen, name) for name in names}
    )
    return run_app(path, options)
