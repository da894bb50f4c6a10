"""Runs an app to its end, whatever that is: threads ended, what was read saved, nothing lost."""

import contextlib
import sys
import threading
from collections.abc import Iterator

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
            saved = export.recover(app.state, app.unsent) if crashed else None
            if saved:
                print(f"The app failed. The conversation is saved in {saved}", file=sys.stderr)
    return 1 if crashed else 0


@contextlib.contextmanager
def _told_if_long(words: str) -> Iterator[None]:
    """Say what is being done if it takes more than a second."""
    told = threading.Timer(1.0, lambda: print(words, file=sys.stderr, flush=True))
    told.start()
    try:
        yield
    finally:
        told.cancel()
