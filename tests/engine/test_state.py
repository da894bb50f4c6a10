import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from localseek import Engine
from localseek.engine.decoding.decoder import Decoder, Outcome
from localseek.engine.drafting.draft import Drafter
from localseek.engine.drafting.draft_policy import FixedDepth
from localseek.engine.llama import Context, Model, Sampler, SamplerOptions
from localseek.engine.loading.keeper import Keeper, origin
from localseek.engine.loading.state import Origin, StateError, image, read_head, restore
from localseek.events import Finished, Notice
from localseek.nano import prompts
from localseek.options import LoadOptions
from localseek.store.sequences import SequenceStore

from .conftest import ask, text_of
from .margins import CLEAR, least_lead

CONTEXT = 1024
MODEL = "a model"
ORIGIN = Origin(MODEL, "a place")
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
        prompts.prompt("(512 - 77) × 6 = ?")
    )


def generate(decoder: Decoder, prompt: list[int], limit: int) -> tuple[list[int], Outcome]:
    outcome, tokens = Outcome(), []
    sampler = Sampler(decoder.model, SamplerOptions())
    steps = decoder.generate(
        prompt, sampler, limit, lambda: False, lambda _done, _cached: None, outcome
    )
    for step in steps:
        tokens += step
    sampler.close()
    return tokens, outcome


def image_of(decoder: Decoder) -> np.ndarray:
    return np.frombuffer(b"".join(image(decoder, ORIGIN)), np.uint8)


@pytest.mark.parametrize("drafts", [True, False])
def test_a_restored_sequence_goes_on_as_the_one_that_was_never_interrupted(model, decoder, drafts):
    prompt = prompt_of(model)
    assert least_lead(model, prompt, 200) > CLEAR
    whole, _ = generate(decoder(drafts), prompt, 200)
    first = decoder(drafts)
    begun, _ = generate(first, prompt, 60)
    again = decoder(drafts)
    restore(again, image_of(first), MODEL)
    rest, outcome = generate(again, prompt + begun, 140)
    assert begun + rest == whole
    # The last token is read again for its logits; one more where drafts ran beyond the limit.
    assert outcome.cached >= len(prompt) + len(begun) - 2
    assert len(whole) > 100


def test_a_sequence_also_helps_a_prompt_that_shares_only_its_beginning(model, decoder):
    prompt = prompt_of(model)
    first, fresh = decoder(), decoder()
    generate(first, prompt, 60)
    restore(fresh, image_of(first), MODEL)
    other = prompt[:-8] + model.tokenize("7 + 8 = ?<｜Assistant｜><think>\n")
    assert least_lead(model, other, 80) > CLEAR
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
    with pytest.raises(StateError, match="damaged|not a saved sequence|another model"):
        restore(again, data, MODEL)
    assert again.cached == []
    assert generate(again, prompt_of(model), 20)[1].cached == 0


def test_no_byte_of_an_image_can_change_unnoticed(model, decoder):
    first, again = decoder(), decoder()
    generate(first, prompt_of(model), 60)
    data, rng = image_of(first).copy(), random.Random(7)
    for _ in range(200):
        place, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        data[place] ^= bit
        with pytest.raises(StateError):
            restore(again, data, MODEL)
        data[place] ^= bit
    restore(again, data, MODEL)


def test_a_restored_drafter_knows_the_row_before_the_next_token(model, decoder):
    first, again = decoder(), decoder()
    begun = prompt_of(model)
    begun += generate(first, begun, 60)[0]
    restore(again, image_of(first), MODEL)
    assert again.drafter.length == len(again.cached)
    assert again.drafter.trim(len(again.cached))  # nothing must be read again for it
    kept = first.drafter.trim(len(first.cached)) and first.drafter.carry
    assert np.array_equal(again.drafter.carry, kept)


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
    begun = read_head(data, data.size)[1].tolist()
    generate(first, prompt_of(model) + begun, 400)
    with pytest.raises(StateError, match="longer than the context"):
        restore(decoder(n_ctx=256), image_of(first), MODEL)


def test_the_fingerprint_changes_with_the_file_and_the_caches(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    part = tmp_path / "m-2.gguf"
    part.write_bytes(b"GGUF" + bytes(100))
    first = origin([file, part], "f16")
    assert first == origin([file, part], "f16")
    assert first.model != origin([file, part], "q8_0").model
    for one in (file, part):
        os.utime(one, ns=(1, 1))
        later = origin([file, part], "f16")
        assert later.model != first.model
        assert later.place == first.place
        first = later


def test_files_of_one_size_and_time_that_differ_anywhere_are_told_apart(tmp_path):
    seen = set()
    for weights in (1, 2):  # the first megabyte, where metadata stands, is the same
        file = tmp_path / "m.gguf"
        file.write_bytes(bytes(2 << 20) + bytes([weights]) * (3 << 20))
        os.utime(file, ns=(1, 1))
        seen.add(origin([file], "f16").model)
    assert len(seen) == 2


def run(
    nano_gguf: Path, question: str, **options: object
) -> tuple[tuple[str, str], int, list[str]]:
    options = LoadOptions(str(nano_gguf), threads=1, prompt_cache=True, **options)
    with Engine.of(options) as engine:
        engine.load()
        events = list(engine.generate(ask(question)))
    assert isinstance(events[-1], Finished)
    notices = [event.text for event in events if isinstance(event, Notice)]
    return text_of(events), events[-1].stats.cached_tokens, notices


def test_a_later_engine_goes_on_from_what_an_earlier_one_has_read(nano_gguf, home, clear):
    first, cached, _ = run(nano_gguf, clear(LONG_QUESTION))
    assert cached == 0
    again, cached, notices = run(nano_gguf, LONG_QUESTION)
    assert again == first
    assert cached > 100
    assert notices == []
    assert len(SequenceStore().list()) == 1  # the same is not saved twice


def test_a_lower_limit_holds_from_the_next_start_on(nano_gguf, home, monkeypatch):
    run(nano_gguf, LONG_QUESTION)
    assert len(SequenceStore().list()) == 1
    monkeypatch.setenv("LOCALSEEK_SEQUENCE_LIMIT", "1kB")
    with Engine.of(LoadOptions(str(nano_gguf), threads=1, prompt_cache=True)) as engine:
        engine.load()
        assert SequenceStore().list() == []


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


def test_a_sequence_longer_than_the_context_is_left_out_and_kept(nano_gguf, home, clear):
    run(nano_gguf, LONG_QUESTION + "Think about it. " * 30)
    (saved,) = SequenceStore().list()
    text, cached, notices = run(nano_gguf, clear(LONG_QUESTION), ctx=256)
    assert cached == 0
    assert text == run(nano_gguf, LONG_QUESTION, ctx=256)[0]
    assert notices == [
        "A saved sequence was left out, it is longer than the context: the prompt is read again."
    ]
    assert saved.path.exists()


def test_what_was_saved_before_the_file_changed_is_left_out_and_said(nano_gguf, home, tmp_path):
    file = tmp_path / "m.gguf"
    shutil.copy(nano_gguf, file)
    first, _, _ = run(file, LONG_QUESTION)
    os.utime(file, (1, 1))
    again, cached, notices = run(file, LONG_QUESTION)
    assert (again, cached) == (first, 0)
    assert len(notices) == 1 and "another state of the model's file" in notices[0]


def test_nothing_is_saved_unless_asked_for(nano_gguf, home):
    with Engine.of(LoadOptions(str(nano_gguf), threads=1)) as engine:
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
    notice = Keeper(first, store, ORIGIN).after()
    assert notice.startswith(f"The sequence could not be saved in {tmp_path}: No space left on")
    assert list(tmp_path.iterdir()) == []


def test_what_went_wrong_with_saving_is_said_with_the_next_answer_and_at_the_end(nano_gguf, home):
    (home / "sequences").mkdir(parents=True)
    options = LoadOptions(str(nano_gguf), threads=1, prompt_cache=True)
    said: list[str] = []
    with Engine.of(options, said.append) as engine:
        engine.load()
        (home / "sequences").rmdir()
        first, second = (list(engine.generate(ask(LONG_QUESTION))) for _ in range(2))
    problem = (
        f"The sequence could not be saved in {home / 'sequences'}: No such file or directory. "
        "Make room there, or set LOCALSEEK_HOME."
    )
    assert [event for event in first if isinstance(event, Notice)] == []
    assert [event.text for event in second if isinstance(event, Notice)] == [problem]
    assert said == [problem]
