"""Train the embedded model from scratch: `python -m localseek.nano.train WORKDIR`.

Makes problems as it goes, trains on reasoning and answers only, checks itself on held-out
problems, gives weaker families more room, and stores its whole state, so that a stopped run
goes on where it was. In the last part of the run weights are rounded to FP8 blocks on the way
forward, as `export.py` will store them. One single-threaded process a core, on shared memory:
matrices this small do not scale over threads. Needs torch and tokenizers (CONTRIBUTING.md).
"""

import argparse
import json
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from localseek.nano import data, problems, vocabulary
from localseek.nano.export import CONFIG, decoded, blocks, stored_in_fp8
from localseek.nano.model import Model, MoE
from localseek.nano.muon import Optimizer

CHECK_EVERY, CHECK_SAMPLES = 250, 24
MTP_WEIGHT = 0.3


@dataclass(frozen=True)
class Run:
    """What the user chose, and how far an earlier run came."""

    work: Path
    total: int
    budget: int
    peak: float
    fp8_from: float
    ranks: int
    first: int
    weights: dict[str, float]


def losses(model: Model, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Give summed cross-entropies: of the next token, and of the one after by the MTP layer."""
    hidden, ahead = model(tokens)
    wanted, later = mask[:, 1:], mask[:, 2:]
    near, far = model.lm_head(hidden[:, :-1][wanted]), model.lm_head(ahead[:, :-1][later])
    main = F.cross_entropy(near, tokens[:, 1:][wanted], reduction="sum")
    return main, F.cross_entropy(far, tokens[:, 2:][later], reduction="sum")


@torch.no_grad()
def check(model: Model, tokenizer: Tokenizer, count: int, seed: str) -> dict[str, float]:
    """Give, by family, how many held-out problems greedy decoding would write out exactly.

    A text is what greedy decoding writes if and only if every token is the likeliest after the
    ones before it, so one pass over the true text tells. `mtp` is the acceptance at position 1.
    """
    model.eval()
    result, drafts = {}, [0, 0]
    for family in problems.MAKERS:
        rng = random.Random(f"{seed}/{family}")
        right = 0
        drawn = sorted((data.sample(rng, tokenizer, family, True) for _ in range(count)), key=lambda s: len(s[0]))
        for start in range(0, count, 8):
            tokens, mask = data.padded(drawn[start : start + 8])
            hidden, ahead = model(tokens)
            hits = model.lm_head(hidden[:, :-1]).argmax(-1) == tokens[:, 1:]
            right += int((hits | ~mask[:, 1:]).all(1).sum())
            drafted = model.lm_head(ahead[:, :-1]).argmax(-1) == tokens[:, 2:]
            drafts[0] += int((drafted & mask[:, 2:]).sum())
            drafts[1] += int(mask[:, 2:].sum())
        result[family] = round(right / count, 3)
    model.train()
    return {**result, "mtp": round(drafts[0] / drafts[1], 4)}


def learning_rate(step: int, total: int) -> float:
    """Give the factor of the learning rate: warm-up, plateau, linear decay over the last 40 %."""
    return min(1.0, (step + 1) / 100, max(0.01, (total - step) / (0.4 * total)))


@contextmanager
def fp8_weights(model: Model) -> Any:
    """Round what FP8 will hold, in place, and put the exact values back at the end."""
    exact = [(p, p.data.clone()) for p in stored_in_fp8(model)]
    for parameter, _ in exact:
        parameter.data.copy_(decoded(*blocks(parameter.data)))
    yield
    for parameter, value in exact:
        parameter.data.copy_(value)


def work_on(rank: int, model: Model, optimizer: Optimizer, shared: Tensor, run: Run, barrier: Any) -> None:
    """Train as one of `run.ranks` processes; rank 0 also checks, stores and logs.

    `shared` is [ranks, parameters + 2 + experts]: each rank's gradient, losses and loads.
    """
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(run.work / "tokenizer.json"))
    parameters = list(model.parameters())
    mixtures = [m for m in model.modules() if isinstance(m, MoE)]
    sizes = [p.numel() for p in parameters]
    weights, started, seen, sums = dict(run.weights), time.monotonic(), 0, [0.0, 0.0, 0]
    for step in range(run.first, run.total):
        if step % data.POOL_STEPS == 0 and (run.work / "weights.json").exists():
            weights = json.loads((run.work / "weights.json").read_text())
        groups = data.groups(step, tokenizer, weights, run.budget, run.ranks)
        predicted = sum(len(ids) - prompt for mine in groups for g in mine for ids, prompt in g)
        rounding = fp8_weights(model) if step >= run.fp8_from * run.total else None
        if rounding and rank == 0:
            rounding.__enter__()
        barrier.wait()
        found = [0.0, 0.0]
        for group in groups[rank]:
            main, mtp = losses(model, *data.padded(group))
            ((main + MTP_WEIGHT * mtp) / predicted).backward()
            found = [found[0] + float(main.detach()), found[1] + float(mtp.detach())]
        loads = [m.load for m in mixtures]
        grads = [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters]
        torch.cat([*grads, torch.tensor(found), *loads], out=shared[rank])
        barrier.wait()
        total = shared.sum(0)
        for parameter, part in zip(parameters, total[: sum(sizes)].split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        if rounding and rank == 0:
            rounding.__exit__(None, None, None)
        barrier.wait()
        optimizer.step(learning_rate(step, run.total), rank, run.ranks)
        for parameter in parameters:
            parameter.grad = None
        for mixture, load in zip(mixtures, total[sum(sizes) + 2 :].split(len(loads[0])), strict=True):
            mixture.load.zero_()
            if rank == 0 and step < 0.8 * run.total:
                mixture.balance(load, 1e-3)
        barrier.wait()
        if rank == 0:
            seen += sum(len(ids) for mine in groups for g in mine for ids, _ in g)
            near, far = total[sum(sizes) : sum(sizes) + 2].tolist()
            sums = [sums[0] + near, sums[1] + far, sums[2] + predicted]
            if (step + 1) % 25 == 0 or step + 1 == run.total:
                speed = round(seen / (time.monotonic() - started))
                report(run, step + 1, model, optimizer, tokenizer, sums, speed)
                sums = [0.0, 0.0, 0]
        barrier.wait()  # nobody reads new weights before all can


def report(
    run: Run, step: int, model: Model, optimizer: Optimizer, tokenizer: Tokenizer,
    sums: list[float], speed: int,
) -> None:  # fmt: skip
    """Log the losses; now and then check, choose new weights and store the state."""
    line: dict[str, object] = {
        "step": step, "loss": round(sums[0] / sums[2], 4), "mtp_loss": round(sums[1] / sums[2], 4),
        "tokens_per_s": speed, "time": time.strftime("%H:%M:%S"),
    }  # fmt: skip
    if step % CHECK_EVERY == 0 or step == run.total:
        with fp8_weights(model):
            line["check"] = found = check(model, tokenizer, CHECK_SAMPLES, f"check/{step}")
        weights = {f: 0.25 + 2 * (1 - found[f]) for f in problems.MAKERS}
        weights["talk"] *= 0.7
        (run.work / "weights.json.new").write_text(json.dumps(weights))
        (run.work / "weights.json.new").replace(run.work / "weights.json")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(state, run.work / "state.new")
        (run.work / "state.new").replace(run.work / "state.pt")
    with (run.work / "log.jsonl").open("a") as log:
        print(json.dumps(line), file=log)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path, help="tokenizer, state and log; made if missing")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=4096, help="tokens a step")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--fp8-from", type=float, default=0.75, help="part of the run before FP8")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    if not (args.workdir / "tokenizer.json").exists():
        vocabulary.save(vocabulary.train(), args.workdir)
    torch.manual_seed(1)
    model = Model(CONFIG)
    optimizer = Optimizer(model, args.rate)
    first = 0
    if (args.workdir / "state.pt").exists():
        state = torch.load(args.workdir / "state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    model.share_memory()
    mixtures = sum(isinstance(m, MoE) for m in model.modules())
    extra = 2 + mixtures * CONFIG["n_routed_experts"]
    size = sum(p.numel() for p in model.parameters()) + extra
    shared = torch.zeros(args.processes, size).share_memory_()
    context = mp.get_context("spawn")
    barrier = context.Barrier(args.processes)
    run = Run(
        args.workdir, args.steps, args.batch, args.rate, args.fp8_from, args.processes, first,
        dict.fromkeys(problems.MAKERS, 1.0),
    )  # fmt: skip
    arguments = (model, optimizer, shared, run, barrier)
    others = [
        context.Process(target=work_on, args=(rank, *arguments), daemon=True)
        for rank in range(1, args.processes)
    ]
    for process in others:
        process.start()
    work_on(0, *arguments)


if __name__ == "__main__":
    main()
