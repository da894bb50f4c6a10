from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localseek.store.history import cipher
from localseek.store.history.history import History
from localseek.text.conversation import Reply


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "history.sqlite3") as opened:
        yield opened


Talk = Callable[..., int]


@pytest.fixture
def talk(history: History) -> Talk:
    """Save a conversation of prompts and answers in turns; give its number."""

    def save(*texts: str, system: str = "") -> int:
        number, leaf = history.new(texts[0], "nano", system), None
        for prompt, answer in zip(texts[::2], texts[1::2], strict=True):
            asked = history.add_prompt(number, leaf, prompt)
            leaf = history.begin_answer(number, asked, "nano")
            history.write_answer(leaf, Reply("because", answer, "stop"))
        return number

    return save


@pytest.fixture
def variants(history: History) -> Callable[[int, int], list[int]]:
    """Give the messages that follow what one follows, itself among them, oldest first."""

    def find(conversation: int, message: int) -> list[int]:
        parents = {one.id: one.parent for one in history.all_messages(conversation)}
        return [one for one, parent in parents.items() if parent == parents[message]]

    return find


@pytest.fixture(scope="module")
def keys():
    """Two keys; deriving one takes a fifth of a second."""
    return [cipher.derive(word, cipher.new_salt()) for word in ("one", "two")]
