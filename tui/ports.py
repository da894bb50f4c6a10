"""What the app needs of the world: an engine, a model's file, a history, the machine.

Plain functions, handed to the app by whoever starts it; tests hand in fakes. The real ones are
made in `localseek/commands/app.py`. Knows nothing about Textual.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from localseek import Engine
from localseek.store.history.history import History
from localseek.store.history.vault import Vault
from localseek.system.machine import Machine
from tui.preferences import Preferences
from tui.threads.session import EngineFactory, Prepare


@dataclass(frozen=True)
class Ports:
    """How the app reaches what is outside of it."""

    prepare: Prepare
    look_around: Callable[[], Machine]
    engine: EngineFactory = Engine.of
    history: Callable[[], History] = History
    vault: Vault | None = None  # of the history, where it may have to be unlocked
    preferences: Preferences = field(default_factory=Preferences)
    save_theme: Callable[[str], None] = lambda theme: None
    copy: Callable[[str], bool] = lambda text: False  # with a program of the system's
