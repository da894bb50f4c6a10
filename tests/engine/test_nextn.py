"""Drafts of every family's NextN layer, and caches that cannot be trimmed at will."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import checkpoints
import checkpoints_v4
import checkpoints_v32
import numpy as np
import pytest
from chains import foreshadow
from nextn_files import write_nextn

from converters import ConvertOptions, convert
from localseek.engine.decoder import Decoder, Outcome
from localseek.engine.depth import DepthController
from localseek.engine.draft import Drafter
from localseek.engine.draft_policy import DepthPolicy, FixedDepth
from localseek.engine.llama import Batch, Context, Model, Sampler, SamplerOptions
from localseek.engine.state import Origin, image, restore
from localseek.gguf.info import check_runnable, read_info
from localseek.gguf.nextn import draft_obstacle
from localseek.placing.shape import read_shape

from .naps import Alternating

PULLS = {"glm4moe": 1.0, "glm-dsa": 0.5, "qwen35": 0.5, "hy_v3": 0.5, "step35": 0.5}
FOLDED = ("qwen35", "deepseek4")  # tokens are taken back from snapshots, and few of them
CONTEXT, TIE = 256, 0.02  # logits of these models have a deviation of about 1
# All experts are used and the indexer sees everything: a choice can turn on the last bit.
V32 = checkpoints.Dims(
    num_hidden_layers=2, intermediate_size=256, moe_intermediate_size=32, n_routed_experts=4,
    num_experts_per_tok=4, q_lora_rank=64, kv_lora_rank=64,
)  # fmt: skip
V4 = checkpoints_v4.Dims(
    moe_intermediate_size=32, n_routed_experts=4, num_experts_per_tok=4, q_lora_rank=64,
    o_lora_rank=32, index_topk=512, compress_ratios=(0, 4, 128, 0),
)  # fmt: skip
KINDS = (*PULLS, "deepseek32", "deepseek4")


@dataclass
class Pair:
    """A model, and the one whose layer drafts for it."""

    kind: str
    trunk: Model
    layer: Model

    @contextlib.contextmanager
    def decoder(self, policy: DepthPolicy | None) -> Iterator[Decoder]:
        target = Context(self.trunk, CONTEXT, 1, hidden=policy is not None, cache_type="f32")
        drafter = Drafter(self.layer, target, 1) if policy else None
        try:
            yield Decoder(self.trunk, target, drafter, policy)
        finally:
            if drafter:
                drafter.close()
            target.close()


def files_of(kind: str, folder: Path) -> tuple[Path, Path]:
    """Write a file of a family, and the file with the layer that drafts, which may be the same."""
    if kind in PULLS:
        path = write_nextn(folder / f"{kind}.gguf", kind, nextn=2 if kind == "hy_v3" else 1)
        return (foreshadow(path, PULLS[kind]),) * 2
    exact = ConvertOptions(type="F32", threads=1, tensor_types=(("exps", "F32"),))
    if kind == "deepseek32":
        source = checkpoints_v32.make_v32(folder / kind, V32, config={"index_topk": 2048})
        convert(source, folder / "v32.gguf", exact)
        return (foreshadow(folder / "v32.gguf", 0.4),) * 2
    source = checkpoints_v4.make_v4(folder / kind, V4)
    paths = folder / "v4.gguf", folder / "v4-mtp.gguf"
    for path, mtp in zip(paths, ("drop", "only"), strict=True):
        options = ConvertOptions(type="F32", threads=1, mtp=mtp, tensor_types=exact.tensor_types)
        convert(source, path, options)
        foreshadow(path, 0.4)
    return paths


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    trunk, layer = files_of(request.param, tmp_path_factory.mktemp("nextn"))
    for path in {trunk, layer}:
        check_runnable(read_info(path), alone=path == trunk)
    assert draft_obstacle(read_info(layer)) == ""
    assert read_shape(read_info(trunk)).branches == (request.param not in FOLDED)
    model = Model(str(trunk), load_mtp=trunk == layer)
    drafting = model if trunk == layer else Model(str(layer), load_mtp=True)
    yield Pair(request.param, model, drafting)
    for one in {model, drafting}:
        one.close()


def generate(decoder: Decoder, prompt: list[int], limit: int) -> tuple[list[int], Outcome]:
    outcome, tokens = Outcome(), []
    sampler = Sampler(decoder.model, SamplerOptions())
    for step in decoder.generate(
        prompt, sampler, limit, lambda: False, lambda _done, _cached: None, outcome
    ):
        tokens += step
    sampler.close()
    return tokens, outcome


def prompts_of(pair: Pair) -> list[tuple[list[int], list[int]]]:
    """Give prompts with their plain texts: longer, edited, longer, shorter, to the end."""
    draw = random.Random(5)
    base = [draw.randrange(5, 90) for _ in range(70)]

    def told(prompt: list[int], limit: int) -> tuple[list[int], list[int]]:
        with pair.decoder(None) as plain:
            return prompt, generate(plain, prompt, limit)[0]

    first = told(base, 40)
    edited = told(base[:40] + [7, 8, 9], 40)
    most = [draw.randrange(5, 90) for _ in range(CONTEXT - 30)]
    return [
        first, told([*base, *first[1], 5, 6], 20), edited,
        told([*edited[0], *edited[1], 5], 20), told(base[:20], 20), told(most, CONTEXT),
    ]  # fmt: skip


def parts_only_at_ties(pair: Pair, prompt: list[int], plain: list[int], drafted: list[int]) -> bool:
    """Tell whether two texts are the same but for what follows two equally likely tokens."""
    if plain == drafted:
        return True
    at = next(i for i, (a, b) in enumerate(zip(plain, drafted, strict=False)) if a != b)
    context, batch = Context(pair.trunk, CONTEXT, 1, cache_type="f32"), Batch(CONTEXT)
    tokens = prompt + plain[:at]
    batch.fill(tokens, 0)
    context.decode(batch)
    logits = context.logits(1)[0]
    gap = abs(float(logits[plain[at]] - logits[drafted[at]]))
    context.close()
    return gap < TIE


def test_drafts_do_not_change_the_text_whatever_is_reused_of_the_prompt(pair):
    told, same = prompts_of(pair), 0
    assert sum(len(found) for found in told[-1]) == CONTEXT
    policies = (
        FixedDepth(1), FixedDepth(2), FixedDepth(4), DepthController(), Alternating(2, 3, 5),
    )  # fmt: skip
    for policy in policies:
        accepted = 0
        with pair.decoder(policy) as drafting:
            for prompt, expected in told:
                found, outcome = generate(drafting, prompt, len(expected))
                assert parts_only_at_ties(pair, prompt, expected, found)
                same += expected == found
                stats = outcome.drafts.stats()
                accepted += stats.accepted if stats else 0
        assert accepted > 10 or isinstance(policy, DepthController)
    assert same >= len(policies) * (len(told) - 1)  # at most one text has a tie


def test_a_saved_sequence_goes_on_as_the_one_that_was_never_interrupted(pair):
    prompt = list(range(5, 75))
    with pair.decoder(FixedDepth(2)) as whole, pair.decoder(FixedDepth(2)) as first:
        expected, _ = generate(whole, prompt, 120)
        begun, _ = generate(first, prompt, 60)
        data = np.frombuffer(b"".join(image(first, Origin("m", "here"))), np.uint8)
        read = len(first.cached)
    known = (prompt + expected)[:read]
    with pair.decoder(FixedDepth(2)) as again:
        restore(again, data, "m")
        rest, outcome = generate(again, known + expected[read - len(prompt) :][:1], 50)
        assert outcome.cached == read  # nothing is read twice, not even for the hidden row
    assert begun == expected[:60]
    assert rest == expected[read - len(prompt) + 1 :][: len(rest)] and len(rest) > 40


def test_a_cache_that_folds_tokens_is_read_again_where_others_are_trimmed(pair):
    prompt = list(range(5, 75))
    with pair.decoder(FixedDepth(2)) as decoder:
        generate(decoder, prompt, 40)
        _, outcome = generate(decoder, prompt[:60] + [9, 9], 10)
        assert (outcome.cached == 0) == (pair.kind in FOLDED)


def test_more_than_the_snapshots_hold_is_never_taken_back(pair):
    context, batch = Context(pair.trunk, CONTEXT, 1, hidden=True), Batch(CONTEXT)
    for tokens, first in (([5] * 9, 0), ([6] * 3, 9)):
        batch.fill(tokens, first)
        context.decode(batch)
    kept = context.trim(8)  # 4 rows, the last decode had 3
    assert kept == (pair.kind not in FOLDED)
    context.close()


def test_a_family_that_cannot_take_drafts_back_runs_without_and_says_why(tmp_path):
    path = write_nextn(tmp_path / "m.gguf", "qwen3next")
    check_runnable(read_info(path))
    assert "cannot take rejected drafts back" in draft_obstacle(read_info(path))
    model = Model(str(path), load_mtp=False)
    context, batch = Context(model, CONTEXT, 1, hidden=True), Batch(CONTEXT)
    batch.fill([5] * 9, 0)
    context.decode(batch)
    assert not context.trim(7)  # else the obstacle is gone: drafts could be allowed
    context.close()
    model.close()
