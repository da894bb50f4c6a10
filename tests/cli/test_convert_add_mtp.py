import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from converters.source.gguf_source import GGUFFile
from localseek import Engine, nano
from localseek.events import AnswerDelta, Finished, ReasoningDelta
from localseek.options import LoadOptions, Message, Request, Sampling

CHECKPOINT = str(nano.CHECKPOINT)


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    found = {}
    with GGUFFile(path) as model:
        for name, tensor in model.tensors.items():
            data = bytearray(tensor.size_bytes)
            model.read_into(tensor, 0, memoryview(data))
            found[name] = (tensor.dtype, bytes(data))
    return found


@contextmanager
def loaded(path: Path, mtp: Literal["auto"] | int = "auto") -> Iterator[Engine]:
    with Engine.of(LoadOptions(str(path), mtp=mtp, threads=1, ctx=512)) as engine:
        engine.load()
        yield engine


def answer(engine: Engine) -> tuple[str, Finished]:
    request = Request((Message("user", "What is 348 + 257?"),), sampling=Sampling(temperature=0.0))
    events = list(engine.generate(request))
    assert isinstance(events[-1], Finished), events[-1]
    text = "".join(e.text for e in events if isinstance(e, AnswerDelta | ReasoningDelta))
    return text, events[-1]


@pytest.fixture
def trunk(real_engine, tmp_path: Path) -> Path:
    path = tmp_path / "trunk.gguf"
    words = ("convert", CHECKPOINT, str(path), "--type", "Q8_0", "--mtp", "drop", "--threads", "1")
    assert real_engine(*words).status == 0
    return path


def test_a_layer_that_was_dropped_is_added_and_drafts(
    real_engine, tmp_path: Path, trunk: Path, nano_gguf: Path
):
    joined = tmp_path / "joined.gguf"
    done = real_engine("convert", str(trunk), str(joined), "--add-mtp", CHECKPOINT, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["tensors"] == 92
    direct = contents(nano_gguf)
    assert contents(joined) == direct
    assert len(contents(trunk)) < len(direct)
    with loaded(trunk) as engine:
        alone, last = answer(engine)
        assert last.stats.draft is None
    with loaded(joined, mtp=2) as engine:
        drafted, last = answer(engine)
        assert last.stats.draft is not None and last.stats.draft.accepted > 10
    assert drafted == alone and "605" in drafted


def test_a_layer_that_is_there_already_is_not_added_twice(
    real_engine, tmp_path: Path, nano_gguf: Path
):
    out = tmp_path / "out.gguf"
    done = real_engine("convert", str(nano_gguf), str(out), "--add-mtp", CHECKPOINT)
    assert done.status == 1 and not out.exists()
    assert "has an MTP layer already" in done.err and done.err.count("\n") == 1
