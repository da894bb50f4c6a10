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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from localseek.nano import data, problems, vocabulary
from localseek.nano.export import CONFIG, blocks, decoded, stored_in_fp8
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
        drawn = [data.sample(rng, tokenizer, family, True) for _ in range(count)]
        drawn.sort(key=lambda pair: len(pair[0]))
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
    """Give the factor of the learning rate: warm-up, plateau, linear decay over the last 55 %."""
    return min(1.0, (step + 1) / 100, max(0.01, (total - step) / (0.55 * total)))


@torch.no_grad()
def round_to_fp8(model: Model) -> list[tuple[Tensor, Tensor]]:
    """Round in place what FP8 will hold; give what `put_back` needs."""
    exact = [(p.data, p.data.clone()) for p in stored_in_fp8(model)]
    for weight, _ in exact:
        weight.copy_(decoded(*blocks(weight)))
    return exact


def put_back(exact: list[tuple[Tensor, Tensor]]) -> None:
    """Undo `round_to_fp8`."""
    for weight, value in exact:
        weight.copy_(value)


class Worker:
    """One of `run.ranks` training processes; rank 0 also checks, stores and logs.

    `shared` is [ranks, parameters + 2 + loads]: each rank's gradient, its two losses, and how
    many tokens each expert got.
    """

    def __init__(
        self, rank: int, model: Model, optimizer: Optimizer, shared: Tensor, run: Run, barrier: Any
    ) -> None:
        self.rank, self.model, self.optimizer, self.run = rank, model, optimizer, run
        self.shared, self.barrier = shared, barrier
        self.tokenizer = Tokenizer.from_file(str(run.work / "tokenizer.json"))
        self.parameters = list(model.parameters())
        self.sizes = [p.numel() for p in self.parameters]
        self.mixtures = [m for m in model.modules() if isinstance(m, MoE)]
        for mixture in self.mixtures:
            mixture.load = torch.zeros_like(mixture.bias)  # counted by each process for itself
        self.weights = dict(run.weights)

    def train(self) -> None:
        """Go through all steps that are left."""
        started, seen, sums = time.monotonic(), 0, [0.0, 0.0, 0.0]
        stored = self.run.work / "weights.json"
        for step in range(self.run.first, self.run.total):
            if step % data.POOL_STEPS == 0 and stored.exists():
                self.weights = json.loads(stored.read_text())
            budget, ranks = self.run.budget, self.run.ranks
            groups = data.groups(step, self.tokenizer, self.weights, budget, ranks)
            found = self.step(step, groups)
            if self.rank == 0:
                seen += sum(len(ids) for mine in groups for g in mine for ids, _ in g)
                sums = [old + new for old, new in zip(sums, found, strict=True)]
                if (step + 1) % 25 == 0 or step + 1 == self.run.total:
                    report(self, step + 1, sums, round(seen / (time.monotonic() - started)))
                    sums = [0.0, 0.0, 0.0]
            self.barrier.wait()  # nobody reads new weights before all can

    def step(self, step: int, groups: list[list[list[data.Sample]]]) -> list[float]:
        """Take one step with all other ranks; give both losses, summed, and over how many."""
        predicted = sum(len(ids) - prompt for mine in groups for g in mine for ids, prompt in g)
        rounded = step >= self.run.fp8_from * self.run.total
        exact = round_to_fp8(self.model) if rounded and self.rank == 0 else []
        self.barrier.wait()
        self.shared[self.rank] = self.gradients(groups[self.rank], predicted)
        self.barrier.wait()
        total = self.shared.sum(0)
        parts = total[: sum(self.sizes)].split(self.sizes)
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        put_back(exact)
        self.barrier.wait()
        self.optimizer.step(learning_rate(step, self.run.total), self.rank, self.run.ranks)
        for parameter in self.parameters:
            parameter.grad = None
        if self.rank == 0 and step < 0.8 * self.run.total:
            loads = total[sum(self.sizes) + 2 :].chunk(len(self.mixtures))
            for mixture, load in zip(self.mixtures, loads, strict=True):
                mixture.balance(load, 1e-3)
        self.barrier.wait()
        return [*total[sum(self.sizes) : sum(self.sizes) + 2].tolist(), predicted]

    def gradients(self, groups: list[list[data.Sample]], predicted: int) -> Tensor:
        """Give this rank's row of `shared` for its groups of samples."""
        found = torch.zeros(2)
        for group in groups:
            main, mtp = losses(self.model, *data.padded(group))
            ((main + MTP_WEIGHT * mtp) / predicted).backward()
            found += torch.stack((main.detach(), mtp.detach()))
        flat = [
            (p.grad if p.grad is not None else torch.zeros_like(p)).flatten()
            for p in self.parameters
        ]
        loads = [mixture.load.clone() for mixture in self.mixtures]
        for mixture in self.mixtures:
            mixture.load.zero_()
        return torch.cat([*flat, found, *loads])


def report(worker: Worker, step: int, sums: list[float], speed: int) -> None:
    """Log the losses; now and then check, choose new weights and store the state."""
    run, model = worker.run, worker.model
    line: dict[str, object] = {
        "step": step, "loss": round(sums[0] / sums[2], 4), "mtp_loss": round(sums[1] / sums[2], 4),
        "tokens_per_s": speed, "time": time.strftime("%H:%M:%S"),
    }  # fmt: skip
    if step % CHECK_EVERY == 0 or step == run.total:
        exact = round_to_fp8(model)
        line["check"] = found = check(model, worker.tokenizer, CHECK_SAMPLES, f"check/{step}")
        put_back(exact)
        weights = {f: 0.25 + 2 * (1 - found[f]) for f in problems.MAKERS}
        (run.work / "weights.json.new").write_text(json.dumps(weights))
        (run.work / "weights.json.new").replace(run.work / "weights.json")
        state = {"model": model.state_dict(), "step": step}
        torch.save(state | {"optimizer": worker.optimizer.state_dict()}, run.work / "state.new")
        (run.work / "state.new").replace(run.work / "state.pt")
    with (run.work / "log.jsonl").open("a") as log:
        print(json.dumps(line), file=log)


def work(
    rank: int, model: Model, optimizer: Optimizer, shared: Tensor, run: Run, barrier: Any
) -> None:
    """Train as one process."""
    torch.set_num_threads(1)
    Worker(rank, model, optimizer, shared, run, barrier).train()


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
        context.Process(target=work, args=(rank, *arguments), daemon=True)
        for rank in range(1, args.processes)
    ]
    for process in others:
        process.start()
    work(0, *arguments)


if __name__ == "__main__":
    main()
