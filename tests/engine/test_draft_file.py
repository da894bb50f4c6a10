"""V4's MTP layer in a file of its own: found, checked, loaded beside the trunk, counted."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import checkpoints_v4
import pytest
from fakes import gguf_file

from converters import ConvertOptions, convert
from localseek import Engine
from localseek.api import looking
from localseek.errors import ModelError, UsageError
from localseek.events import Finished, Notice
from localseek.gguf.draft_file import choose_drafting
from localseek.gguf.info import GGUFInfo, read_info
from localseek.gguf.runnable import check_runnable
from localseek.options import Fixed, LoadOptions

from .conftest import ask, text_of

DIMS = checkpoints_v4.Dims(
    moe_intermediate_size=32, n_routed_experts=4, num_experts_per_tok=4, q_lora_rank=64,
    o_lora_rank=32, index_topk=512, compress_ratios=(0, 4, 128, 0),
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v4")
    source = checkpoints_v4.make_v4(folder / "checkpoint", DIMS)
    for name, mtp in (("v4", "drop"), ("v4-mtp", "only")):
        convert(source, folder / f"{name}.gguf", ConvertOptions(mtp=mtp, threads=1))
    shutil.rmtree(source)
    return folder


@pytest.fixture
def folder(files, tmp_path):
    for path in files.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


def chosen(folder: Path, asked: str = "") -> str:
    drafting = choose_drafting(read_info(folder / "v4.gguf"), "auto", asked)
    assert drafting.on == (drafting.file is not None)
    return drafting.file.path.name if drafting.file else drafting.notice


def test_the_file_beside_a_model_drafts_for_it_and_is_named(folder):
    drafting = choose_drafting(read_info(folder / "v4.gguf"), "auto", "")
    assert drafting.file.path == folder / "v4-mtp.gguf"
    assert drafting.notice == "v4-mtp.gguf, beside the model, drafts for it."
    assert not choose_drafting(read_info(folder / "v4.gguf"), "off", "no such file").on


def test_of_several_the_one_with_the_likest_name_drafts_or_the_user_is_asked(folder):
    mtp = folder / "v4-mtp.gguf"
    shutil.copy(mtp, folder / "mtp-other.gguf")
    assert chosen(folder) == "v4-mtp.gguf"
    shutil.copy(mtp, folder / "mtp-v4.gguf")
    assert chosen(folder).startswith("No drafts: mtp-v4.gguf, v4-mtp.gguf could all draft")
    assert chosen(folder, str(mtp)) == "v4-mtp.gguf"


def test_a_file_of_another_checkpoint_is_passed_over(folder, tmp_path_factory):
    source = checkpoints_v4.make_v4(tmp_path_factory.mktemp("x") / "other", DIMS, seed=7)
    mtp = folder / "v4-mtp.gguf"
    convert(source, mtp, ConvertOptions(mtp="only", threads=1, force=True))
    assert chosen(folder) == ""
    assert chosen(folder, str(mtp)) == "v4-mtp.gguf"  # who names it knows why
    (folder / "broken-mtp.gguf").write_bytes(b"GGUF")
    assert chosen(folder) == ""


def altered(info: GGUFInfo, **metadata: object) -> GGUFInfo:
    changes = {f"deepseek4.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return replace(info, metadata=info.metadata | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embedding_length": 512}, "its embedding_length is 256, the model's 512"),
        ({"hyper_connection__count": 2}, "its hyper_connection.count is 4, the model's 2"),
        ({"block_count": 43}, "it is for a model of 3 layers, not 43"),
    ],
)
def test_a_named_file_that_does_not_fit_is_refused_with_the_reason(folder, changes, words):
    info = altered(read_info(folder / "v4.gguf"), **changes)
    with pytest.raises(ModelError, match=words):
        choose_drafting(info, "auto", str(folder / "v4-mtp.gguf"))


def test_what_is_no_layer_for_this_model_is_refused_with_the_reason(folder):
    info = read_info(folder / "v4.gguf")
    with pytest.raises(ModelError, match="it is a whole model"):
        choose_drafting(info, "auto", str(folder / "v4.gguf"))
    with pytest.raises(ModelError, match="There is no file"):
        choose_drafting(info, "auto", str(folder / "absent.gguf"))
    tokens = replace(info, metadata=info.metadata | {"tokenizer.ggml.tokens": ("a", "b")})
    with pytest.raises(ModelError, match="it has other tokens"):
        choose_drafting(tokens, "auto", str(folder / "v4-mtp.gguf"))
    own = read_info(gguf_file.write_experts(folder / "v3.gguf"))
    with pytest.raises(UsageError, match="has a multi-token prediction layer of its own"):
        choose_drafting(own, "auto", str(folder / "v4-mtp.gguf"))


def test_heads_as_wide_as_the_indexers_would_kill_the_process_and_are_refused(folder):
    mtp = read_info(folder / "v4-mtp.gguf")
    from localseek.gguf.nextn import draft_obstacle

    assert draft_obstacle(mtp) == ""
    same = altered(mtp, attention__indexer__key_length=mtp.count("attention.key_length"))
    assert "as wide as the indexer's" in draft_obstacle(same)


def test_the_layer_alone_is_no_model(folder):
    with pytest.raises(ModelError, match="holds only a multi-token prediction layer"):
        check_runnable(read_info(folder / "v4-mtp.gguf"))


def test_it_is_shown_as_what_it_is(folder, real_engine, home):
    shutil.copy(folder / "v4-mtp.gguf", home / "models" / "v4-mtp.gguf")
    listed = real_engine("models", "list").out.splitlines()
    assert next(line for line in listed if line.startswith("v4-mtp")).endswith("only")
    assert "drafts for the model's main file" in real_engine("models", "show", "v4-mtp").out
    done = real_engine("ask", "-m", "v4-mtp", "x")
    assert done.status == 1 and "name this one with --draft-model" in done.err
    plan = real_engine("plan", str(folder / "v4.gguf"), "--vram", "1G", "--ram", "4G").out
    assert "from v4-mtp.gguf, drafts, with a cache of its own" in plan
    assert "one at a time: the cache of this family cannot be shared" not in plan
    options = LoadOptions(str(folder / "v4.gguf"), ctx=512, threads=1, parallel=4)
    _, placement = looking.plan(folder / "v4.gguf", options)
    assert any("one at a time" in reason for reason in placement.reasons)
    with Engine.of(options) as engine:
        assert placement.parallel == engine.load().parallel == 1


def test_the_engine_drafts_with_it_and_foresees_its_memory(folder):
    options = LoadOptions(str(folder / "v4.gguf"), ctx=512, threads=1, fixed=Fixed(mmap=False))
    with Engine.of(options) as engine:
        planned = asdict(looking.plan(folder / "v4.gguf", options)[1].memory[0])
        info = engine.load()
        events = list(engine.generate(ask("in the end", max_tokens=40)))
    assert info.drafting and info.placement["draft_file"].endswith("v4-mtp.gguf")
    said = info.allotted[0]
    parts = sum(planned[part] for part in ("weights", "cache", "draft_cache", "compute"))
    assert parts == pytest.approx(said["weights"] + said["cache"] + said["compute"], rel=0.03)
    assert any(isinstance(e, Notice) and "drafts for it" in e.text for e in events)
    assert isinstance(events[-1], Finished) and events[-1].stats.draft is not None


def test_a_saved_sequence_belongs_to_the_file_that_drafted(folder):
    options = LoadOptions(str(folder / "v4.gguf"), ctx=512, threads=1, prompt_cache=True, mtp=1)
    question = "in the beginning there was the word and " * 6

    def run() -> tuple[tuple[str, str], int]:
        with Engine.of(options) as engine:
            engine.load()
            events = list(engine.generate(ask(question, max_tokens=20)))
        assert isinstance(events[-1], Finished)
        return text_of(events), events[-1].stats.cached_tokens

    first, cached = run()
    assert cached == 0
    assert run()[0] == first
    (folder / "v4-mtp.gguf").touch()  # another file, as far as one can know
    assert run() == (first, 0)
