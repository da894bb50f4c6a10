"""What the user sets on the command line or in a batch row, the same for every verb.

Takes parsed arguments (or a batch row), gives a frozen `GenerationOptions` and from it what the
engine is sent. Knows nothing about any one verb.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from localseek.engine.process.rpc import split_address
from localseek.errors import UsageError
from localseek.options import (
    DEFAULT_MODEL,
    MAX_DEPTH,
    Fixed,
    GenerationOptions,
    LoadOptions,
    Mtp,
    Request,
    Sampling,
)
from localseek.placing.shape import CACHE_TYPES
from localseek.text import shapes

_SAMPLING = frozenset(f.name for f in fields(Sampling))
EFFORTS = ("high", "max")
MAX_SEED = 2**32 - 1  # llama.cpp's seed has 32 bits
MAX_CTX = 2**31 - 1  # tokens; llama.cpp counts positions in 32 bits with a sign
MAX_TIMEOUT_S = 86_400
MAX_LAYERS = 100_000  # anything from the count of layers on means all
MAX_PARALLEL = 32  # with 4 drafts each these are 160 rows a step; llama.cpp could do 256 requests
MAX_LAST_N = 1_000_000  # tokens that penalties look back at
MAX_THREADS = 1024  # more than any machine has; llama.cpp starts them all


def _whole(low: int, high: int | None = None) -> Callable[[Any], int]:
    """Make a check for a whole number within bounds, from text or from JSON."""
    rule = f"{low} or more" if high is None else f"from {low} to {high:,}"

    def whole_number(value: Any) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError(rule) from error
        if type(number) is not int or number < low or (high is not None and number > high):
            raise ValueError(rule)
        return number

    return whole_number


def _real(low: float, high: float) -> Callable[[Any], float]:
    """Make a check for a number within bounds, from text or from JSON."""
    rule = f"from {low:g} to {high:g}"

    def real_number(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(rule)
        try:
            number = float(value)
        except (ValueError, OverflowError) as error:
            raise ValueError(rule) from error
        if not low <= number <= high:  # false for NaN too
            raise ValueError(rule)
        return number

    return real_number


# Name → the check of its value. Rows of a batch may set these; the rest belongs to the load.
CHECKS: dict[str, Callable[[Any], int | float]] = {
    "max_tokens": _whole(1),
    "think_budget": _whole(0),
    "temperature": _real(0, 100),
    "top_p": _real(0, 1),
    "top_k": _whole(0),
    "min_p": _real(0, 1),
    "repeat_penalty": _real(0.01, 100),
    "seed": _whole(0, MAX_SEED),
    "presence_penalty": _real(-100, 100),
    "frequency_penalty": _real(-100, 100),
    "repeat_last_n": _whole(0, MAX_LAST_N),
    "typical_p": _real(0, 1),
    "top_n_sigma": _real(-1, 100),
    "xtc_probability": _real(0, 1),
    "xtc_threshold": _real(0, 1),
    "dry_multiplier": _real(0, 100),
    "dry_base": _real(1, 100),
    "dry_allowed_length": _whole(1, MAX_LAST_N),
    "dry_penalty_last_n": _whole(0, MAX_LAST_N),
}
LOAD_CHECKS: dict[str, Callable[[Any], int | float]] = {
    "ctx": _whole(0, MAX_CTX),
    "threads": _whole(0, MAX_THREADS),
    "layers": _whole(0, MAX_LAYERS),
    "timeout": _whole(1, MAX_TIMEOUT_S),
    "parallel": _whole(0, MAX_PARALLEL),
}


def _argument(check: Callable[[Any], int | float]) -> Callable[[str], int | float]:
    """Turn a check into an argparse type whose error names the range."""

    def parse(text: str) -> int | float:
        try:
            return check(text)
        except ValueError as error:
            message = f"{text!r} is not a number {error}"
            raise argparse.ArgumentTypeError(message) from error

    return parse


whole_threads = _argument(LOAD_CHECKS["threads"])


def mtp_of(text: str) -> Mtp:
    """Read what --mtp was given; 0 drafts are no drafting."""
    if text in ("auto", "off"):
        return "auto" if text == "auto" else "off"
    if text.isascii() and text.isdigit() and int(text) <= MAX_DEPTH:
        return int(text) or "off"
    message = f"{text!r} is not auto, off or a number from 1 to {MAX_DEPTH}"
    raise argparse.ArgumentTypeError(message)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the generation options to a verb's parser."""
    group = parser.add_argument_group("generation options")
    add = group.add_argument
    add("-m", "--model", metavar="MODEL",
        help="a model's name, a GGUF file, or nano, the embedded one (default)")  # fmt: skip
    add("-s", "--system", default="", metavar="TEXT", help="the system prompt")
    numbers = {
        "max_tokens": ("N", "stop after N tokens"),
        "think_budget": ("N", "let the model reason for N tokens at most, then answer"),
        "temperature": ("T", "0: always the likeliest token; higher: more varied"),
        "top_p": ("P", "sample from the likeliest tokens that together have probability P"),
        "top_k": ("K", "sample from the K likeliest tokens; 0: all"),
        "min_p": ("P", "leave out tokens less likely than P times the likeliest"),
        "repeat_penalty": ("R", "1: none; higher: repeat less"),
        "seed": ("N", "the same seed gives the same answer (default: a new one each time)"),
    }
    _add_numbers(group, numbers)
    add("--stop", action="append", default=[], metavar="TEXT",
        help="end the answer before TEXT (repeatable)")  # fmt: skip
    add("--think", action=argparse.BooleanOptionalAction, default=None,
        help="let the model reason first, or not, where its template has a switch")  # fmt: skip
    add("--effort", choices=EFFORTS, default="",
        help="how hard the model reasons, where its template knows it (V4)")  # fmt: skip
    shape = group.add_mutually_exclusive_group()
    shape.add_argument("--schema", type=shapes.schema_file, metavar="FILE",
        help="the answer is JSON that fits this JSON schema; reasoning stays free")  # fmt: skip
    shape.add_argument("--grammar", type=shapes.grammar_file, metavar="FILE",
        help="the answer fits this grammar (GBNF, as in llama.cpp, or Lark)")  # fmt: skip
    add("--logit-bias", action="append", default=[], type=shapes.bias, metavar="TOKEN=BIAS",
        help="add BIAS to a token, a number or text, in the answer; false: never "
        "(repeatable)")  # fmt: skip
    add("--chat-template", type=shapes.template_file, metavar="FILE",
        help="a chat template (jinja) in place of the model's own")  # fmt: skip
    add("--prompt-cache", action="store_true",
        help="save what was read; a later run then goes on from the same beginning")  # fmt: skip
    _add_numbers(parser.add_argument_group("finer sampling, off if left out, as in llama.cpp"), {
        "repeat_last_n": ("N", "what the penalties look back at; 64 tokens"),
        "presence_penalty": ("P", "taken off the logits of tokens that have come"),
        "frequency_penalty": ("P", "taken off as often as they have come"),
        "dry_multiplier": ("M", "penalty for going on with a repeated sequence"),
        "dry_base": ("B", "grows so with each token of the sequence; 1.75"),
        "dry_allowed_length": ("N", "from sequences longer than this; 2"),
        "dry_penalty_last_n": ("N", "sequences of these last tokens; 64"),
        "top_n_sigma": ("N", "logits within N standard deviations of the highest"),
        "typical_p": ("P", "the most typical tokens with probability P together"),
        "xtc_probability": ("P", "leave out the likeliest tokens so often, all but the last"),
        "xtc_threshold": ("T", "that have this probability; 0.1"),
    })  # fmt: skip
    add_load_arguments(parser)


def add_parallel_argument(parser: argparse.ArgumentParser, what: str, default: int) -> None:
    """Add the option of verbs that have many requests; `what` these are called there."""
    parser.add_argument(
        "--parallel", type=_argument(LOAD_CHECKS["parallel"]), metavar="N",
        help=f"answer N {what} at once (default: {default}); they share the context. "
        "0: as many as pay and fit, up to 8",
    )  # fmt: skip


def parallel_from(arguments: argparse.Namespace, default: int) -> int:
    """Give how many requests are answered at once; raises UsageError for what excludes itself."""
    given: int | None = arguments.parallel
    if not arguments.prompt_cache:
        return default if given is None else given
    if given is not None and given > 1:
        raise UsageError(
            "--prompt-cache saves one sequence at a time.", "Leave it or --parallel out."
        )
    return 1


def _add_numbers(group: argparse._ArgumentGroup, numbers: dict[str, tuple[str, str]]) -> None:
    """Add options with numbers as values, checked by what CHECKS says."""
    for name, (metavar, text) in numbers.items():
        option = "--" + name.replace("_", "-")
        group.add_argument(option, type=_argument(CHECKS[name]), metavar=metavar, help=text)


def add_load_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a model is loaded and where it goes."""
    add = parser.add_argument_group("load options, each decided for you if left out").add_argument
    layers = _argument(LOAD_CHECKS["layers"])
    add("--ctx", type=_argument(LOAD_CHECKS["ctx"]), default=0, metavar="N",
        help="size of the context in tokens; 0: as trained, up to 32,768, if it fits")  # fmt: skip
    add("--mtp", type=mtp_of, default="auto", metavar="auto|off|N",
        help="draft with the multi-token prediction layer if the model has one: as many tokens "
        f"a step as measurements say, none, or always N (up to {MAX_DEPTH})")  # fmt: skip
    add("--draft-model", default="", metavar="FILE",
        help="a GGUF file with the model's multi-token prediction layer, as convert --mtp only "
        "writes it for V4 (default: one beside the model with mtp in its name)")  # fmt: skip
    add("--threads", type=whole_threads, default=0, metavar="N",
        help="processor threads; 0: one a physical core")  # fmt: skip
    add("--gpu-layers", type=layers, metavar="N",
        help="the last N layers on devices, the output counting as one; 0: none")  # fmt: skip
    add("--cpu-experts", type=layers, metavar="N",
        help="the routed experts of the last N layers in memory")  # fmt: skip
    add("--place", action="append", default=[], type=place_rule, metavar="REGEX=DEVICE",
        help="tensors whose names match on a device or CPU (repeatable)")  # fmt: skip
    add("--device", action="append", default=[], metavar="NAME",
        help="use this device only (repeatable); none: the processor alone")  # fmt: skip
    add("--cache-type", choices=CACHE_TYPES, default="", metavar="TYPE",
        help=f"type of the cache: {', '.join(CACHE_TYPES)} (default: f16)")  # fmt: skip
    add("--mmap", action=argparse.BooleanOptionalAction, default=None,
        help="map weights in memory from the file, or read them in")  # fmt: skip
    add("--remote", action="append", default=[], type=worker_address, metavar="HOST:PORT",
        help="use the worker there too (repeatable); see localseek worker")  # fmt: skip
    add("--remote-timeout", type=_argument(LOAD_CHECKS["timeout"]), default=120, metavar="S",
        help="give a worker up that lets an answer wait this long; 120 seconds")  # fmt: skip


def worker_address(text: str) -> str:
    """Read what --remote was given."""
    try:
        split_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is {error}") from error
    return text


def place_rule(text: str) -> tuple[str, str]:
    """Read what --place was given."""
    rule, equals, device = text.rpartition("=")
    if not equals or not rule or not device.strip():
        message = f"{text!r} is not REGEX=DEVICE, such as blk.[0-9]+.ffn_.*_exps=CPU"
        raise argparse.ArgumentTypeError(message)
    return rule, device.strip()


def fixed_from(arguments: argparse.Namespace) -> Fixed:
    """Give what a parsed command line fixes of the placement."""
    return Fixed(
        gpu_layers=arguments.gpu_layers,
        cpu_experts=arguments.cpu_experts,
        place=tuple(arguments.place),
        devices=tuple(name for text in arguments.device for name in text.split(",")),
        cache_type=arguments.cache_type,
        mmap=arguments.mmap,
        remote=tuple(dict.fromkeys(arguments.remote)),
        remote_timeout_s=arguments.remote_timeout,
    )


def options_from(arguments: argparse.Namespace) -> GenerationOptions:
    """Give the options of a parsed command line; raises UsageError for an empty stop text."""
    if "" in arguments.stop:
        raise UsageError("--stop needs a text.")
    sampling = Sampling(
        **{name: getattr(arguments, name) for name in CHECKS if name in _SAMPLING},
        logit_bias=tuple(arguments.logit_bias), schema=arguments.schema or "",
        grammar=arguments.grammar or "",
    )  # fmt: skip
    request = Request(
        (), sampling, max_tokens=arguments.max_tokens, stop=tuple(arguments.stop),
        think=arguments.think, think_budget=arguments.think_budget, effort=arguments.effort,
    )  # fmt: skip
    load = LoadOptions(
        ctx=arguments.ctx, threads=arguments.threads, mtp=arguments.mtp,
        draft_model=arguments.draft_model, fixed=fixed_from(arguments),
        prompt_cache=arguments.prompt_cache, chat_template=arguments.chat_template or "",
        draft_memory=True,
    )  # fmt: skip
    model = arguments.model or DEFAULT_MODEL
    return GenerationOptions(model, arguments.system, load, request)


def with_row(options: GenerationOptions, row: Mapping[str, Any]) -> GenerationOptions:
    """Give the options with those that a batch row sets; raises UsageError naming a bad one."""
    changes: dict[str, Any] = {}
    for name, check in CHECKS.items():
        if row.get(name) is None:
            continue
        try:
            changes[name] = check(row[name])
        except ValueError as error:
            raise UsageError(f"{name} is {row[name]!r}, not a number {error}.") from error
    if row.get("stop") is not None:
        stop = [row["stop"]] if isinstance(row["stop"], str) else row["stop"]
        if not isinstance(stop, list) or not all(isinstance(s, str) for s in stop):
            raise UsageError("stop is neither a string nor a list of strings.")
        if not all(stop):
            raise UsageError("stop holds an empty string.", "Leave it out, or write what ends it.")
        changes["stop"] = tuple(stop)
    for name, kind in (("system", str), ("think", bool)):
        if row.get(name) is not None:
            if not isinstance(row[name], kind):
                raise UsageError(f"{name} is {row[name]!r}, not a {kind.__name__}.")
            changes[name] = row[name]
    if row.get("effort") is not None:
        if row["effort"] not in EFFORTS:
            raise UsageError(f"effort is {row['effort']!r}, not {' or '.join(EFFORTS)}.")
        changes["effort"] = row["effort"]
    changes |= shapes.of_row(row)
    system = changes.pop("system", options.system)
    told = {name: changes.pop(name) for name in _SAMPLING & changes.keys()}
    sampling = replace(options.request.sampling, **told)
    request = replace(options.request, sampling=sampling, **changes)
    return replace(options, system=system, request=request)
