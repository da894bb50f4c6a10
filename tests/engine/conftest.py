from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localseek import Engine
from localseek.events import AnswerDelta, Event, ReasoningDelta
from localseek.options import LoadOptions, Message, Request, Sampling


@pytest.fixture(scope="module")
def started(
    nano_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Engine]]:
    """Give an engine that is alive: the module's own, or a new one after a test has killed it."""
    running: list[Engine] = []

    def start() -> Engine:
        if not running or not running[-1].alive:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LOCALSEEK_HOME", str(tmp_path_factory.mktemp("engine-home")))
                running.append(Engine.of(LoadOptions(str(nano_gguf), threads=1)))
                running[-1].load()
        return running[-1]

    yield start
    for engine in running:
        engine.close()


@pytest.fixture
def engine(started: Callable[[], Engine]) -> Engine:
    return started()


def ask(question: str, **fields: object) -> Request:
    sampling = fields.pop("sampling", Sampling(temperature=0.0))
    return Request((Message("user", question),), sampling=sampling, **fields)


def text_of(events: list[Event]) -> tuple[str, str]:
    reasoning = "".join(e.text for e in events if isinstance(e, ReasoningDelta))
    return reasoning, "".join(e.text for e in events if isinstance(e, AnswerDelta))
