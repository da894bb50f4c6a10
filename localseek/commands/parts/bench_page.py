"""A bench's report as a page of text, and as a picture. Takes a `Report`, gives lines or SVG."""

from collections.abc import Iterator

from localseek.bench.chart import Bar, Group, draw
from localseek.bench.report import Loading, Report, Spread
from localseek.system.sizes import rough_size
from localseek.terminal.columns import table
from localseek.terminal.drawing import place_name

NAMES = {"off": "drafts off", "auto": "drafts automatic"}


def page(report: Report, width: int | None = None) -> list[str]:
    """Give the whole page for a terminal with so many columns, None: any number."""
    sections = [_head(report), _speeds(report, width), _answers(report, width)]
    sections.append(_piped(report, width))
    if report.no_drafts:
        sections.insert(3, [report.no_drafts])
    sections.append(list(_rest(report)))
    if not report.complete:
        sections.append(["Interrupted: these are the figures until then."])
    shown = [section for section in sections if section]
    return "\n\n".join("\n".join(section) for section in shown).split("\n")


def way_name(way: str) -> str:
    """Give what people call a way to draft."""
    return NAMES.get(way, f"always {way}")


def speed(value: float) -> str:
    """Give tokens a second with the digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def short_time(seconds: float) -> str:
    """Give a time as people say it."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"


def _head(report: Report) -> list[str]:
    model, settings, machine = report.model, report.settings, report.machine
    size = rough_size(model["size_bytes"])
    what = f"{model['name']}: {model['architecture']}, {model['type']}, {size}"
    threads, rounds = settings["threads"], settings["runs"]
    return [
        f"{what}, context {settings['ctx']:,}, {threads} thread{'s' if threads != 1 else ''}, "
        f"{rounds} round{'s' if rounds != 1 else ''}",
        f"{machine['cpu']}, {machine['cores']} cores; {report.llama_cpp}",
    ]


def _cells(found: Spread) -> tuple[str, str]:
    return speed(found.median), f"{speed(found.low)}–{speed(found.high)}"


def _times(found: Spread | None) -> str:
    return "" if found is None else f"{found.median:.2f}"


def _speeds(report: Report, width: int | None) -> list[str]:
    """Show what llama-bench shows: reading and decoding random tokens."""
    settings = report.settings
    rows = [("", "tok/s", "low–high", "of plain")]
    for way, found in report.prompt.items():
        what = "" if way == "off" else ", drafts on"
        name = f"read {settings['prompt_tokens']:,} tokens{what}"
        rows.append((name, *_cells(found.tps), _times(found.ratio)))
    if report.decode is not None:
        name = f"decode {settings['tokens']:,} tokens"
        rows.append((name, *_cells(report.decode.tps), _times(report.decode.ratio)))
    return table(rows, width) if len(rows) > 1 else []


def _answers(report: Report, width: int | None) -> list[str]:
    """Show answers by way to draft, and how often drafts were accepted by position."""
    rows = [("answers", "tok/s", "low–high", "of plain", "accepted", "drafts a step", "tokens")]
    for way, found in report.drafts.items():
        shares = " ".join(f"{share:.2f}" for share in found.acceptance)
        counts = (f"{found.mean_depth:.2f}", f"{found.tokens_per_step:.2f}")
        times = _times(found.ratio)
        rows.append((way_name(way), *_cells(found.tps), times, shares, *counts))
    differ = [way_name(way) for way, found in report.drafts.items() if not found.same_text]
    lines = table(rows, width) if len(rows) > 1 else []
    return [*lines, f"other text than without drafts: {', '.join(differ)}"] if differ else lines


def _piped(report: Report, width: int | None) -> list[str]:
    """Show answers through events and pipe, and what that adds."""
    rows = [("as users get them", "tok/s", "low–high", "added a token")]
    for way, found in report.pipe.items():
        added = "" if found.added_us is None else f"{found.added_us.median:+.0f} µs"
        rows.append((way_name(way), *_cells(found.tps), added))
    return table(rows, width) if len(rows) > 1 else []


def _rest(report: Report) -> Iterator[str]:
    """Show times and memory."""
    for way, found in report.first_token_s.items():
        yield (
            f"first token after {report.first_token_prompt:,}, {way_name(way)}: "
            f"{short_time(found.median)} ({short_time(found.low)}–{short_time(found.high)})"
        )
    if report.cold is not None:
        name = "load from the disk" if not report.cold_problem else "first load"
        yield _load_line(name, report.cold)
        if report.cold_problem:
            yield f"no cold load: {report.cold_problem}"
    if report.warm is not None:
        yield _load_line("load from memory", report.warm)
    memory = report.memory
    if "peak_bytes" in memory:
        own = memory.get("own_bytes")
        parts = "" if own is None else f", now {rough_size(own)} of its own"
        if "file_bytes" in memory:
            parts += f" and {rough_size(memory['file_bytes'])} of files"
        yield f"memory of the engine: at most {rough_size(memory['peak_bytes'])}{parts}"
        for one in memory["llama_cpp"]:
            sizes = ", ".join(
                f"{name} {rough_size(one[name])}" for name in ("weights", "cache", "compute")
            )
            yield f"llama.cpp on {place_name(one['device'])}: {sizes}"


def _load_line(name: str, loading: Loading) -> str:
    ready, first = loading.ready_s.median, loading.first_token_s.median
    return f"{name}: ready in {short_time(ready)}, first token in {short_time(first)}"


def picture(report: Report) -> str:
    """Draw the speeds."""
    settings = report.settings
    reading = [
        _bar("drafts off" if way == "off" else "drafts on", found.tps, found.ratio)
        for way, found in report.prompt.items()
    ]
    decoding = [_bar("random tokens", report.decode.tps, None)] if report.decode else []
    answers = [
        _bar(way_name(way), found.tps, found.ratio, marked=way == "auto")
        for way, found in report.drafts.items()
    ]
    piped = [
        _bar(way_name(way), found.tps, None, marked=way == "auto")
        for way, found in report.pipe.items()
    ]
    groups = [
        Group(f"Reading {settings['prompt_tokens']:,} tokens", tuple(reading)),
        Group(f"Decoding {settings['tokens']:,} tokens", tuple(decoding)),
        Group("Answers", tuple(answers)),
        Group("Answers as users get them", tuple(piped)),
    ]
    first, second = _head(report)
    return draw(first, f"{second}. Medians with lowest and highest.", groups)


def _bar(label: str, tps: Spread, ratio: Spread | None, marked: bool = False) -> Bar:
    times = "" if ratio is None else f" · {ratio.median:.2f}×"
    note = f"{speed(tps.median)} tok/s{times}"
    return Bar(label, tps.median, tps.low, tps.high, note, marked)
