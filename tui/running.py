"""Runs an app to its end, whatever that is: threads ended, what was read saved, nothing lost."""

import contextlib
import sys
import threading
from collections.abc import Iterator

from localseek.text.conversation import Reply
from tui.app import LocalseekApp
from tui.text import export


def run_app(app: LocalseekApp, *, headless: bool = False) -> int:
    """Run an app, end its threads, and save the conversation if the app crashed."""
    crashed = True
    try:
        app.run(headless=headless)
        crashed = bool(app.return_code)
    finally:
        try:
            with _told_if_long("Saving what the model has read, so that it is there next time…"):
                app.close_session()
        finally:
            if crashed and (words := _rescued(app)):
                print(f"The app failed. {words}", file=sys.stderr)
    return 1 if crashed else 0


def _rescued(app: LocalseekApp) -> str:
    """Save what a crash would lose, and say where; beside an encrypted history only in it."""
    vault = app.ports.vault
    if vault is None or not vault.encrypted:
        saved = export.recover(app.state, app.unsent)
        return f"The conversation is saved in {saved}" if saved else ""
    view = app.state.conversation
    if vault.locked or app.state.unsaved or view.temporary or not app.unsent.strip():
        return ""  # what was sent is in the history
    with vault.open() as history:
        number = history.new(app.unsent, app.state.model.name, view.system)
        answer = history.begin_answer(
            number, history.add_prompt(number, None, app.unsent), app.state.model.name
        )
        history.write_answer(answer, Reply(finish_reason="cancelled"))
    return f"What was not sent is conversation {number} of the history."


@contextlib.contextmanager
def _told_if_long(words: str) -> Iterator[None]:
    """Say what is being done if it takes more than a second."""
    told = threading.Timer(1.0, lambda: print(words, file=sys.stderr, flush=True))
    told.start()
    try:
        yield
    finally:
        told.cancel()
