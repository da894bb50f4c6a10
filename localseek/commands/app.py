"""No verb: the terminal app. Here it is handed the real world: engine, models, history, machine.

A name that means no model is refused before the screen is taken; everything slower happens behind
the first picture.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from localseek.api.models import completed, find_model, find_runnable_model
from localseek.errors import UsageError
from localseek.options import GenerationOptions, LoadOptions
from localseek.store.library import EMBEDDED
from localseek.system.environment import terminal_kind
from localseek.system.machine import Machine
from localseek.terminal import clipboard, settings
from localseek.terminal.first_picture import WELCOME, first_picture
from localseek.terminal.messages import is_terminal, prepare_streams

if TYPE_CHECKING:
    from localseek.store.history.vault import Vault

EXAMPLES = """examples:
  localseek
  localseek --model v2-lite --temperature 0.6
  localseek --no-save
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the app."""
    parser.add_argument("--no-save", action="store_true",
        help="begin with a temporary conversation, of which nothing is kept")  # fmt: skip
    settings.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Open the app."""
    prepare_streams()
    _need_a_terminal()
    chosen = settings.options_from(arguments)
    if chosen.model != EMBEDDED:  # which may have to be made first
        find_model(chosen.model)
    with first_picture(chosen.model, WELCOME):
        from localseek.commands.parts.unlocking import unlock_unasked
        from localseek.store.history.vault import Vault
        from tui import preferences
        from tui.app import LocalseekApp
        from tui.ports import Ports
        from tui.running import run_app

        vault = Vault()
        if vault.askable:
            unlock_unasked(vault)  # or the app asks
        file = preferences.settings_file()
        ports = Ports(
            prepare=partial(prepare, chosen, vault),
            history=vault.open,
            vault=vault,
            look_around=partial(look_around, chosen),
            preferences=preferences.read(file),
            save_theme=partial(preferences.write_theme, file),
            copy=clipboard.copy,
        )
        app = LocalseekApp(chosen, ports, temporary=arguments.no_save)
    return run_app(app)


def prepare(
    chosen: GenerationOptions, vault: "Vault", name: str, say: Callable[[str], None]
) -> LoadOptions:
    """Find a model's file, checked, and how it is loaded; what was read can be saved.

    Beside a history that stays locked it cannot.
    """
    path = find_runnable_model(name, say)
    options, notice = completed(chosen, path)
    if notice:
        say(notice)
    return replace(
        options.load_options(path), prompt_cache=not vault.locked,
        sequence_key=vault.sequence_key(),
    )  # fmt: skip


def look_around(chosen: GenerationOptions) -> Machine:
    """Let an engine say what there is here and at the workers named."""
    from localseek.api import looking

    return looking.look_around(chosen.load.fixed)


def _need_a_terminal() -> None:
    """Raise UsageError where the app would draw for nobody, or on what cannot show it."""
    others = "Use localseek chat or localseek ask, which need none."
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError("The app needs a terminal for its input and output.", others)
    if terminal_kind() == "dumb":
        raise UsageError("This terminal cannot show the app (TERM is dumb or not set).", others)
    if not is_terminal(sys.stderr):
        raise UsageError("The app draws on standard error, which is not a terminal here.", others)
