import os
from pathlib import Path

import numpy as np
import pytest

from localseek.engine.client import Engine
from localseek.engine.decoder import Decoder, Outcome
from localseek.engine.draft import Drafter
from localseek.engine.draft_policy import FixedDepth
from localseek.engine.keeper import Keeper, fingerprint
from localseek.engine.llama import Context, Model, Sampler
from localseek.engine.protocol import LoadOptions
from localseek.engine.state import StateError, image, read_head, restore
from localseek.events import Finished, Notice
from localseek.sequences import SequenceStore

from .conftest import ask, text_of

CONTEXT = 1024
MODEL = "a model"
LONG_QUESTION = "What is 348 + 257? " + "I must know it before the shop closes tonight. " * 8


@pytest.fixture(scope="module")
def model(nano_gguf):
    loaded = Model(str(nano_gguf), load_mtp=True)
    yield loaded
    loaded.close()


@pytest.fixture
def decoder(model):
    made: list[Decoder] = []

    def make(drafts: bool = True, n_ctx: int = CONTEXT) -> Decoder:
        target = Context(model, n_ctx, 1, hidden=drafts)
        drafter = Drafter(model, target, 1) if drafts else None
        made.append(Decoder(model, target, drafter, FixedDepth(1)))
        return made[-1]

    yield make
    for one in made:
        if one.drafter:
            one.drafter.close()
        one.target.close()


def prompt_of(model: Model) -> list[int]:
    return model.tokenize(
        "<｜begin▁of▁sentence｜><｜User｜>(512 - 77) × 6 = ?<｜Assistant｜><think>\n"
    )


def generate(decoder: Decoder, prompt: list[int], limit: int) -> tuple[list[int], Outcome]:
    outcome, tokens = Outcome(), []
    sampler = Sampler(decoder.model.n_vocab, 0.0, 0, 1.0, 0.0, 1.0, 0)
    steps = decoder.generate(
        prompt, sampler, limit, lambda: False, lambda _done, _cached: None, outcome
    )
    for step in steps:
        tokens += step
    sampler.close()
    return tokens, outcome


def image_of(decoder: Decoder) -> np.ndarray:
    return np.frombuffer(b"".join(image(decoder, MODEL)), np.uint8)


@pytest.mark.parametrize("drafts", [True, False])
def test_a_restored_sequence_goes_on_as_the_one_that_was_never_interrupted(model, decoder, drafts):
    prompt = prompt_of(model)
    whole, _ = generate(decoder(drafts), prompt, 200)
    first = decoder(drafts)
    begun, _ = generate(first, prompt, 60)
    again = decoder(drafts)
    restore(again, image_of(first), MODEL)
    rest, outcome = generate(again, prompt + begun, 140)
    assert begun + rest == whole
    # What is read again is the last token, and with drafts what the layer has not run yet.
    assert outcome.cached >= len(prompt) + len(begun) - 5
    assert len(whole) > 100


def test_a_sequence_also_helps_a_prompt_that_shares_only_its_beginning(model, decoder):
    prompt = prompt_of(model)
    first, fresh = decoder(), decoder()
    generate(first, prompt, 60)
    restore(fresh, image_of(first), MODEL)
    other = prompt[:-8] + model.tokenize("7 + 8 = ?<｜Assistant｜><think>\n")
    expected, _ = generate(decoder(), other, 80)
    found, outcome = generate(fresh, other, 80)
    assert found == expected
    assert 0 < outcome.cached < len(prompt)


@pytest.mark.parametrize("place", [3, 25, 60, 300, 5_000, -40, -5])
def test_a_damaged_image_is_refused_and_leaves_the_decoder_empty(model, decoder, place):
    first, again = decoder(), decoder()
    generate(first, prompt_of(model), 60)
    data = image_of(first).copy()
    data[place] ^= 1
    with pytest.raises(StateError, match="damaged|no saved sequence|another model"):
        restore(again, data, MODEL)
    assert again.cached == []
    assert generate(again, prompt_of(model), 20)[1].cached == 0


@pytest.mark.parametrize("size", [0, 10, 40, 400, 20_000])
def test_a_truncated_image_is_refused(model, decoder, size):
    first, again = decoder(), decoder()
    generate(first, prompt_of(model), 60)
    with pytest.raises(StateError):
        restore(again, image_of(first)[:size], MODEL)


def test_an_image_of_another_kind_is_refused_with_the_reason(model, decoder):
    first = decoder()
    generate(first, prompt_of(model), 60)
    data = image_of(first)
    with pytest.raises(StateError, match="another model or version"):
        restore(decoder(), data, "another model")
    with pytest.raises(StateError, match="MTP layer"):
        restore(decoder(drafts=False), data, MODEL)
    begun = read_head(data, data.size)[1]
    generate(first, prompt_of(model) + begun, 400)
    with pytest.raises(StateError, match="longer than the context"):
        restore(decoder(n_ctx=256), image_of(first), MODEL)


def test_the_fingerprint_changes_with_the_file_and_the_caches(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    first = fingerprint(file, "f16")
    assert first == fingerprint(file, "f16")
    assert first != fingerprint(file, "q8_0")
    os.utime(file, ns=(1, 1))
    assert first != fingerprint(file, "f16")


def run(nano_gguf: Path, question: str) -> tuple[tuple[str, str], int, list[str]]:
    options = LoadOptions(str(nano_gguf), threads=1, prompt_cache=True)
    with Engine(options) as engine:
        engine.load()
        events = list(engine.generate(ask(question)))
    assert isinstance(events[-1], Finished)
    notices = [event.text for event in events if isinstance(event, Notice)]
    return text_of(events), events[-1].stats.cached_tokens, notices


def test_a_later_engine_goes_on_from_what_an_earlier_one_has_read(nano_gguf, home):
    first, cached, _ = run(nano_gguf, LONG_QUESTION)
    assert cached == 0
    again, cached, notices = run(nano_gguf, LONG_QUESTION)
    assert again == first
    assert cached > 100
    assert notices == []
    assert len(SequenceStore().list()) == 1  # the same is not saved twice


def test_a_damaged_file_costs_time_only_and_is_said(nano_gguf, home):
    first, _, _ = run(nano_gguf, LONG_QUESTION)
    (saved,) = SequenceStore().list()
    data = bytearray(saved.path.read_bytes())
    data[-1000] ^= 255
    saved.path.write_bytes(data)
    again, cached, notices = run(nano_gguf, LONG_QUESTION)
    assert (again, cached) == (first, 0)
    assert notices == ["A saved sequence was left out, it is damaged: the prompt is read again."]
    assert run(nano_gguf, LONG_QUESTION)[1] > 100


def test_nothing_is_saved_unless_asked_for(nano_gguf, home):
    with Engine(LoadOptions(str(nano_gguf), threads=1)) as engine:
        engine.load()
        list(engine.generate(ask(LONG_QUESTION)))
    assert not (home / "sequences").exists()


def test_a_full_disk_is_a_notice_and_no_failure(model, decoder, tmp_path, monkeypatch):
    first = decoder()
    generate(first, prompt_of(model), 80)
    store = SequenceStore(tmp_path)

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    notice = Keeper(first, store, MODEL).after()
    assert notice == "The sequence could not be saved: No space left on device."
    assert list(tmp_path.iterdir()) == []
