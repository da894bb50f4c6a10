from collections.abc import Iterator
from pathlib import Path

import pytest

from converters import ConvertOptions, convert
from localseek import nano
from localseek.engine.client import Engine
from localseek.engine.protocol import LoadOptions, Message, Request, Sampling
from localseek.events import Event


@pytest.fixture(scope="session")
def nano_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nano") / "nano-Q8_0.gguf"
    convert(nano.CHECKPOINT, path, ConvertOptions(type="Q8_0"))
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCALSEEK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def engine(nano_gguf: Path, home: Path) -> Iterator[Engine]:
    with Engine(LoadOptions(str(nano_gguf), threads=1)) as running:
        running.load()
        yield running


def ask(question: str, **fields: object) -> Request:
    sampling = fields.pop("sampling", Sampling(temperature=0.0))
    return Request((Message("user", question),), sampling=sampling, **fields)


def text_of(events: list[Event]) -> tuple[str, str]:
    from localseek.events import AnswerDelta, ReasoningDelta

    reasoning = "".join(e.text for e in events if isinstance(e, ReasoningDelta))
    return reasoning, "".join(e.text for e in events if isinstance(e, AnswerDelta))
