"""What `chat` and `ask` do with the history: go on with a conversation, and save what is said.

Takes parsed arguments, gives the conversation so far, the options to answer with, and a recorder.
A history that cannot be opened is told of in one line; only going on with a conversation needs it.
"""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from localseek.commands.parts.unlocking import unlock, with_key
from localseek.options import GenerationOptions
from localseek.store.history.database import HistoryError
from localseek.store.history.history import History
from localseek.store.history.recorder import Recorder
from localseek.store.history.records import turns_of
from localseek.store.history.vault import Vault
from localseek.terminal import settings
from localseek.terminal.messages import note
from localseek.text.conversation import Transcript


@dataclass(frozen=True)
class Begun:
    """A conversation that is about to go on; `recorder` is None if it is not saved."""

    options: GenerationOptions
    conversation: Transcript
    recorder: Recorder | None = None
    title: str = ""  # of a conversation that is continued


@contextlib.contextmanager
def begun(arguments: argparse.Namespace, name: str | None, save: bool) -> Iterator[Begun]:
    """Give the conversation `name` (None: a new one; "": the last), recorded if `save`.

    The model and the system prompt are those it had, unless the command line names others. Raises
    UsageError for a name that fits none or several, HistoryError if it cannot be continued.
    """
    options = settings.options_from(arguments)
    if name is None and not save:
        yield Begun(options, Transcript(options.system))
        return
    try:
        vault = Vault()
        unlock(vault)
        history = vault.open()
    except HistoryError as error:
        if name is not None:
            raise
        note(f"{error} This conversation is not saved.")
        yield Begun(options, Transcript(options.system))
        return
    options = with_key(options, vault)
    with history:
        yield _new(history, options) if name is None else _continued(
            history, options, name, arguments.model is None
        )


def _new(history: History, options: GenerationOptions) -> Begun:
    recorder = Recorder(history, options.model, options.system, note)
    return Begun(options, Transcript(options.system), recorder)


def _continued(
    history: History, options: GenerationOptions, name: str, its_model: bool
) -> Begun:
    saved = history.named(name)
    branch = history.branch(saved.leaf)
    while branch and branch[-1].role == "user":
        branch.pop()  # a prompt that was never answered
    options = replace(
        options,
        model=saved.model if its_model else options.model,
        system=options.system or saved.system,
    )
    if (options.model, options.system) != (saved.model, saved.system):
        history.change(saved.id, model=options.model, system=options.system)
    recorder = Recorder(history, options.model, options.system, note, saved.id, branch)
    conversation = Transcript(options.system, turns_of(branch))
    return Begun(options, conversation, recorder, saved.title)
