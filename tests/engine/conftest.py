from collections.abc import Iterator
from pathlib import Path

import pytest

from localseek.engine.client import Engine
from localseek.engine.protocol import LoadOptions, Message, Request, Sampling
from localseek.events import AnswerDelta, Event, ReasoningDelta


@pytest.fixture
def engine(nano_gguf: Path, home: Path) -> Iterator[Engine]:
    with Engine(LoadOptions(str(nano_gguf), threads=1)) as running:
        running.load()
        yield running


def ask(question: str, **fields: object) -> Request:
    sampling = fields.pop("sampling", Sampling(temperature=0.0))
    return Request((Message("user", question),), sampling=sampling, **fields)


def text_of(events: list[Event]) -> tuple[str, str]:
    reasoning = "".join(e.text for e in events if isinstance(e, ReasoningDelta))
    return reasoning, "".join(e.text for e in events if isinstance(e, AnswerDelta))
