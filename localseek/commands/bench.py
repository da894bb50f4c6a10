"""`localseek bench MODEL`: how fast a model is here, with and without drafts, and what it takes.

Every figure is measured in turns with the others and given with its spread. Ctrl-C shows what is
known until then.
"""

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from localseek import Engine, __version__
from localseek.api.models import find_runnable_model
from localseek.bench.findings import Findings
from localseek.bench.loads import measure_loads
from localseek.bench.questions import built_in
from localseek.bench.report import Report, make_report
from localseek.bench.rounds import PARTS, Plan, Rounds, Stopped, ways_to_draft
from localseek.commands.ask import read_text
from localseek.commands.parts.bench_page import page, picture
from localseek.commands.parts.session import cancelled_by_interrupt
from localseek.errors import LocalseekError, UsageError
from localseek.gguf.info import GGUFInfo, read_info
from localseek.options import LoadOptions
from localseek.system import hardware
from localseek.terminal import settings
from localseek.terminal.columns import folded
from localseek.terminal.messages import Status, clean, note, prepare_streams, width_of

EXAMPLES = """examples:
  localseek bench nano
  localseek bench r1.gguf --threads 16 --runs 3 --plot r1.svg
  localseek bench r1.gguf --only drafts --prompt question.txt
  localseek bench r1.gguf --json | jq '.drafts | map_values(.tps.median)'
"""
ROOM = 64  # tokens of the context for what a template and drafts add
MAX_TOKENS = 1_000_000  # of a prompt or an answer
PLACED = ("threads", "ctx", "batch", "cache_type", "mmap", "repack", "layers", "output", "draft")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model's name, a GGUF file, or nano")
    add("--prompt-tokens", type=_count(2, MAX_TOKENS), default=512, metavar="N",
        help="read prompts of N tokens (default: 512, as llama-bench)")  # fmt: skip
    add("--tokens", type=_count(2, MAX_TOKENS), default=128, metavar="N",
        help="decode N tokens (default: 128, as llama-bench)")  # fmt: skip
    add("--runs", type=_count(1, 10_000), default=5, metavar="N",
        help="rounds that count, after a warm-up (default: 5)")  # fmt: skip
    add("--prompt", metavar="FILE", help="answer the text in FILE, not the questions built in")
    add("--only", action="append", default=[], choices=PARTS, metavar="PART",
        help=f"measure this alone (repeatable): {', '.join(PARTS)}")  # fmt: skip
    add("--plot", metavar="FILE", help="draw the speeds as an SVG picture")
    add("--json", action="store_true", help="print one JSON object")
    settings.add_load_arguments(parser)


def _count(low: int, high: int) -> Callable[[str], int]:
    """Make an argparse type for whole numbers within bounds."""

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high:,}")

    return parse


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; what is known is printed too when the user or the engine ends it early."""
    prepare_streams()
    if arguments.plot and not Path(arguments.plot).absolute().parent.is_dir():
        raise UsageError(f"{arguments.plot} is in no folder that is there.", "Make it first.")
    if arguments.plot and Path(arguments.plot).is_dir():
        raise UsageError(f"{arguments.plot} is a folder.", "Name a file in it, such as bench.svg.")
    question = read_text(arguments.prompt) if arguments.prompt else ""
    if arguments.prompt and not question.strip():
        raise UsageError(f"{arguments.prompt} is empty.", "Leave --prompt out for other questions.")
    path = find_runnable_model(arguments.model)
    info = read_info(path)
    options = LoadOptions(
        str(path), _context(arguments, question, info), arguments.threads, arguments.mtp,
        arguments.draft_model, settings.fixed_from(arguments),
    )  # fmt: skip
    plan = Plan(
        arguments.prompt_tokens, arguments.tokens, arguments.runs,
        (question,) if question else built_in(info), frozenset(arguments.only or PARTS),
    )  # fmt: skip
    findings = Findings()
    try:
        with Status("starting the engine") as status:
            _measure(info, options, plan, findings, partial(setattr, status, "text"))
        findings.complete = True
    except (Stopped, KeyboardInterrupt):
        _print(_report(findings, info, options, plan), arguments)
        return 130
    except LocalseekError:
        known = _report(findings, info, options, plan)
        if known.measured:
            _print(known, arguments)
        raise
    _print(_report(findings, info, options, plan), arguments)
    return 0


def _context(arguments: argparse.Namespace, question: str, info: GGUFInfo) -> int:
    """Give the context that is needed, or that was asked for; raises UsageError if it is less."""
    # A text has at most as many tokens as bytes; beyond the trained context it would be nonsense.
    asked = min(len(question.encode()), info.context_length or MAX_TOKENS)
    needed = max(arguments.prompt_tokens, asked) + arguments.tokens + ROOM
    least = arguments.prompt_tokens + arguments.tokens + ROOM
    if 0 < arguments.ctx < least:
        raise UsageError(
            f"--ctx {arguments.ctx} is too small for prompts of {arguments.prompt_tokens:,} tokens "
            f"and answers of {arguments.tokens:,}.",
            f"It takes {least:,}.",
        )
    return int(arguments.ctx or needed)


def _measure(
    info: GGUFInfo, options: LoadOptions, plan: Plan, findings: Findings,
    show: Callable[[str], None],
) -> None:  # fmt: skip
    """Do all parts of the plan; raises Stopped, KeyboardInterrupt, LocalseekError."""
    if "load" in plan.parts:
        measure_loads(info.parts, options, findings, show)
    if plan.parts == {"load"}:
        return
    show("loading")
    with Engine.of(options, say=note) as engine:
        findings.info = engine.load()
        drafting = ways_to_draft(options.mtp) if findings.info.drafting else ()
        with cancelled_by_interrupt(engine.cancel, engine.kill) as interrupted:
            findings.system = engine.facts().get("system", "")
            Rounds(engine, replace(plan, drafting=drafting), findings, show, interrupted).run()


def _report(findings: Findings, info: GGUFInfo, options: LoadOptions, plan: Plan) -> Report:
    """Give the report with what was measured on what."""
    facts = {
        "localseek": __version__,
        "llama_cpp": f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}",
        "machine": asdict(hardware.read_hardware()),
    }
    model = {
        "name": info.name, "file": info.path.name, "architecture": info.architecture,
        "type": info.type_name, "size_bytes": info.size_bytes, "parameters": info.n_params,
        "mtp_layers": info.nextn_layers,
    }  # fmt: skip
    placed = findings.info.placement if findings.info else {}
    told = {name: placed[name] for name in PLACED if name in placed}
    asked = {
        "threads": options.threads, "ctx": options.ctx, "mtp": options.mtp,
        "prompt_tokens": plan.prompt_tokens, "tokens": plan.tokens, "runs": plan.runs,
        "parts": sorted(plan.parts),
    }  # fmt: skip
    return make_report(findings, facts, model, {**asked, **told}, _no_drafts(findings, info, plan))


def _no_drafts(findings: Findings, info: GGUFInfo, plan: Plan) -> str:
    """Say why nothing was drafted, "" if something was or could not be known."""
    if "drafts" not in plan.parts or findings.info is None or findings.info.drafting:
        return ""
    if not info.nextn_layers:
        return "No drafts: the file has no multi-token prediction layer."
    return "No drafts: the multi-token prediction layer was not loaded."


def _print(report: Report, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps(asdict(report)))
    elif report.measured:
        width = width_of(sys.stdout)
        print("\n".join(folded(map(clean, page(report, width)), width)))
    else:
        note("Nothing was measured yet.")
    if arguments.plot and report.measured:
        Path(arguments.plot).write_text(picture(report), encoding="utf-8")
