"""`localseek models verify`: every value of a model file checked, alone or against its source.

Files that were downloaded are compared with the checksums they were published with first.
"""

import argparse
import json
import math
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from localseek.api.models import find_model
from localseek.commands.library import checksums
from localseek.commands.parts.converting import Meter, as_ours
from localseek.errors import UsageError
from localseek.gguf.info import read_info
from localseek.gguf.runnable import check_runnable
from localseek.store import changing
from localseek.system.sizes import rough_time
from localseek.terminal.columns import table
from localseek.terminal.messages import is_terminal, one_line, width_of

if TYPE_CHECKING:
    from converters import Audit, TensorAudit

SHOWN = 10  # tensors with the largest errors
HEADINGS = ("TENSOR", "TYPE", "ERROR", "WORST BLOCK", "AT", "LARGEST")
BY_TYPE = ("TYPE", "TENSORS", "ERROR", "WORST BLOCK")


def run(arguments: argparse.Namespace) -> int:
    """Check a file and print what was found; exit status 1 if anything is wrong."""
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads is {arguments.threads}; 1 or more is possible.")
    path = find_model(arguments.name)
    from converters import ConvertError, Progress, audit

    quiet = arguments.json and not is_terminal(sys.stderr)
    meter = Meter(quiet)
    try:
        files = changing.files_of(path)
        sums = checksums.compared(files, lambda *done: meter.show(Progress(*done)))
    finally:
        meter.end()
    if any(one.problem for one in sums):  # by its publisher's word: nothing else has to be read
        broken = {"path": str(path), "sound": False, "checksums": checksums.as_json(sums)}
        print(json.dumps(broken) if arguments.json else "\n".join(checksums.lines(sums)))
        return 1
    check_runnable(read_info(path))
    meter = Meter(quiet)
    try:
        found = audit(path, arguments.against, arguments.threads, meter.show)
    except ConvertError as error:
        raise as_ours(error) from error
    finally:
        meter.end()
    if arguments.json:
        print(json.dumps({**_as_json(found), "checksums": checksums.as_json(sums)}))
    else:
        print("\n".join([*checksums.lines(sums), _page(found, width_of(sys.stdout))]))
    return 0 if found.sound else 1


def _page(found: "Audit", width: int | None) -> str:
    compared = [one for one in found.tensors if one.rmse is not None]
    lines: list[str] = []
    if compared:
        lines += table([HEADINGS, *map(_row, compared[:SHOWN])], width)
        more = len(compared) - SHOWN
        lines += [f"and {more} more with smaller errors"] if more > 0 else []
        lines += [
            "",
            *table([BY_TYPE, *_by_type(compared)], width),
            "",
        ]
    lines += [f"problem: {one_line(text)}" for text in found.problems]
    lines += [f"note: {one_line(text)}" for text in found.notes]
    for tensor in found.tensors:
        lines += [f"problem: {tensor.name}: {text}" for text in tensor.problems]
        lines += [f"note: {tensor.name}: {text}" for text in tensor.notes]
    lines.append(_verdict(found, len(compared)))
    return "\n".join(lines)


def _verdict(found: "Audit", compared: int) -> str:
    count = len(found.problems) + sum(len(one.problems) for one in found.tensors)
    state = "sound" if found.sound else f"{count} problem{'s' if count != 1 else ''}"
    how = f"{len(found.tensors)} tensors read"
    if found.against is not None:
        how += f", {compared} compared with {found.against}"
    return one_line(f"{found.path}: {state}, {how}, {rough_time(found.elapsed_s)}")


def _row(tensor: "TensorAudit") -> tuple[str, ...]:
    place = ", ".join(map(str, tensor.worst_at or ()))
    return (
        one_line(tensor.name),
        tensor.type,
        _share(tensor.rmse),
        _share(tensor.worst_block),
        f"[{place}]",
        f"{tensor.largest_error:.2g}",
    )


def _by_type(tensors: "list[TensorAudit]") -> list[tuple[str, ...]]:
    """Sum up by type: the mean error of its tensors and its worst block, largest error first."""
    groups: defaultdict[str, list[TensorAudit]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.type].append(tensor)
    rows = []
    for name, group in groups.items():
        mean = math.sqrt(sum((one.rmse or 0.0) ** 2 for one in group) / len(group))
        worst = max(one.worst_block or 0.0 for one in group)
        rows.append((mean, (name, str(len(group)), _share(mean), _share(worst))))
    return [row for _, row in sorted(rows, reverse=True)]


def _share(value: float | None) -> str:
    if not value:
        return "0"
    return f"{value:.2%}" if value >= 0.0001 else f"{100 * value:.0e}%"


def _as_json(found: "Audit") -> dict[str, Any]:
    return {
        "path": str(found.path),
        "against": str(found.against) if found.against else None,
        "architecture": found.architecture,
        "sound": found.sound,
        "problems": list(found.problems),
        "notes": list(found.notes),
        "elapsed_s": round(found.elapsed_s, 3),
        "tensors": [
            {
                "name": one.name,
                "type": one.type,
                "shape": list(one.shape),
                "rmse": _finite(one.rmse),
                "worst_block": _finite(one.worst_block),
                "worst_at": list(one.worst_at) if one.worst_at is not None else None,
                "largest_error": _finite(one.largest_error),
                "problems": list(one.problems),
                "notes": list(one.notes),
            }
            for one in found.tensors
        ],
    }


def _finite(value: float | None) -> float | None:
    """Give a number that JSON has: an infinite one becomes the largest."""
    return value if value is None or math.isfinite(value) else sys.float_info.max
