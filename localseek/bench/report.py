"""Findings as figures: medians, spreads, ratios round by round.

Takes `Findings` and what was measured on what, gives a `Report`, whose fields are those of `bench
--json`. Knows nothing about terminals.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from localseek.bench.findings import WARM_UP, Answers, Findings, Loads, Series
from localseek.bench.loads import cold_problem

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """The values of the rounds; `warm_up` is what came before them and counts for nothing."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...]
    warm_up: float | None = None


@dataclass(frozen=True)
class Speed:
    """Tokens a second, and how many times that of plain decoding or reading, if it is not it."""

    tps: Spread
    ratio: Spread | None = None


@dataclass(frozen=True)
class Answering:
    """Answers with one way to draft. Counts and shares are by position, the first draft first."""

    tps: Spread
    ratio: Spread | None
    steps: int
    tokens: int
    drafted: tuple[int, ...]
    accepted: tuple[int, ...]
    acceptance: tuple[float, ...]
    mean_depth: float  # tokens drafted and verified a step
    tokens_per_step: float
    same_text: bool  # as without drafts, in every round


@dataclass(frozen=True)
class Piped:
    """Answers as users get them; `added_us`: microseconds a token more than at the decoder."""

    tps: Spread
    added_us: Spread | None


@dataclass(frozen=True)
class Loading:
    """Seconds until the engine is ready, and until the first token of a short answer."""

    ready_s: Spread
    first_token_s: Spread
    in_memory: tuple[float | None, ...]  # share of the file, before each load


@dataclass(frozen=True)
class Report:
    """All of a bench. Empty or None is what was not measured."""

    complete: bool
    localseek: str
    llama_cpp: str
    system: str  # llama.cpp's own words on processor features and build
    machine: dict[str, Any]
    model: dict[str, Any]
    settings: dict[str, Any]
    prompt: dict[str, Speed]
    decode: Speed | None
    drafts: dict[str, Answering]
    no_drafts: str  # why there are none
    pipe: dict[str, Piped]
    first_token_s: dict[str, Spread]
    first_token_prompt: int
    cold: Loading | None
    cold_problem: str  # why the cold loads were not cold
    warm: Loading | None
    memory: dict[str, Any]
    texts: tuple[dict[str, Any], ...]

    @property
    def measured(self) -> bool:
        """Tell whether there is any figure."""
        return bool(
            self.prompt or self.decode or self.drafts or self.pipe or self.first_token_s
            or self.cold or self.warm
        )  # fmt: skip


def spread(values: Series) -> Spread | None:
    """Give median and spread of the rounds that count, None if there are none."""
    rounds = [values[number] for number in sorted(values) if number != WARM_UP]
    if not rounds:
        return None
    return Spread(
        statistics.median(rounds), min(rounds), max(rounds), tuple(rounds), values.get(WARM_UP)
    )


def ratio(values: Series, base: Series) -> Spread | None:
    """Give the spread of the quotients of rounds that have both."""
    return spread({number: values[number] / base[number] for number in values if number in base})


def speeds(series: Mapping[str, Series]) -> dict[str, Speed]:
    """Give each way's speed, and all but plain ones as ratios to plain."""
    plain = series.get("off", {})
    found = {}
    for way, values in series.items():
        if (tps := spread(values)) is not None:
            found[way] = Speed(tps, None if way == "off" else ratio(values, plain))
    return found


def _known(found: Mapping[str, T | None]) -> dict[str, T]:
    return {way: one for way, one in found.items() if one is not None}


def _answering(way: str, findings: Findings) -> Answering | None:
    values, plain = findings.text[way], findings.text.get("off", {})
    tps = spread(values)
    if tps is None:
        return None
    answers = findings.answers[way]
    same = findings.answers.get("off", Answers()).digests
    return Answering(
        tps=tps,
        ratio=None if way == "off" else ratio(values, plain),
        steps=answers.steps,
        tokens=answers.tokens,
        drafted=tuple(answers.drafted),
        accepted=tuple(answers.accepted),
        acceptance=tuple(
            round(accepted / drafted, 4)
            for accepted, drafted in zip(answers.accepted, answers.drafted, strict=True)
        ),
        mean_depth=round(sum(answers.drafted) / max(answers.steps, 1), 3),
        tokens_per_step=round(answers.tokens / max(answers.steps, 1), 3),
        same_text=all(same.get(number, text) == text for number, text in answers.digests.items()),
    )


def _piped(way: str, findings: Findings) -> Piped | None:
    values, direct = findings.pipe[way], findings.text.get(way, {})
    tps = spread(values)
    added = {n: 1e6 / values[n] - 1e6 / direct[n] for n in values if n in direct}
    return None if tps is None else Piped(tps, spread(added))


def _loading(loads: Loads) -> Loading | None:
    ready, first = spread(loads.ready), spread(loads.first_token)
    if ready is None or first is None:
        return None
    return Loading(ready, first, tuple(loads.in_memory.values()))


def make_report(
    findings: Findings, facts: Mapping[str, Any], model: Mapping[str, Any],
    settings: Mapping[str, Any], no_drafts: str,
) -> Report:  # fmt: skip
    """Give the report; `facts` are those of program and machine."""
    tps = spread(findings.decode)
    return Report(
        complete=findings.complete,
        localseek=facts["localseek"],
        llama_cpp=facts["llama_cpp"],
        system=findings.system,
        machine=facts["machine"],
        model=dict(model),
        settings=dict(settings),
        prompt=speeds(findings.prompt),
        decode=None if tps is None else Speed(tps),
        drafts=_known({way: _answering(way, findings) for way in findings.text}),
        no_drafts=no_drafts,
        pipe=_known({way: _piped(way, findings) for way in findings.pipe}),
        first_token_s=_known({way: spread(one) for way, one in findings.first_token.items()}),
        first_token_prompt=findings.first_token_prompt,
        cold=_loading(findings.cold),
        cold_problem=cold_problem(findings.cold),
        warm=_loading(findings.warm),
        memory=_memory(findings),
        texts=tuple(
            {"question": question, "prompt_tokens": list(prompt), "generated": generated}
            for question, prompt, generated in findings.texts
        ),
    )


def _memory(findings: Findings) -> dict[str, Any]:
    """Give the child's memory and what llama.cpp says of it, by device."""
    allotted = findings.info.allotted if findings.info else ()
    process = {f"{name}_bytes": size for name, size in findings.memory.items()}
    return {**process, "llama_cpp": [dict(one) for one in allotted]}
