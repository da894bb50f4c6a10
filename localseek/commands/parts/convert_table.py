"""What `localseek convert --dry-run` prints: a Preview as a table for people or as one JSON object.

Takes a converters.Preview. Writes the table with rich, as wide as the terminal, in 110 columns
where there is none. Decides nothing and converts nothing.
"""

import json
import re
import shutil
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from localseek.system.sizes import rough_size, rough_time
from localseek.terminal.messages import clean, has_colours, is_terminal

if TYPE_CHECKING:
    from converters import Fitted, PartPreview, Preview, TypeUse

COLUMNS = 110  # where no terminal says how wide it is
LEAST_COLUMNS = 96  # narrower ones wrap the lines: rich would cut numbers and types off


def show(preview: "Preview") -> None:
    """Print the preview on stdout."""
    for line in _head(preview):
        print(line)
    print()
    _print(_parts_table(preview.parts))
    print()
    if preview.fitted is not None:
        show_fit(preview.fitted)
        print()
    for line in _foot(preview):
        print(line)


def show_fit(fitted: "Fitted") -> None:
    """Print what was chosen for a size, and what more would cost."""
    kept = ""
    if fitted.reserved_bytes:
        kept = f", {rough_size(fitted.reserved_bytes)} of them kept free for the tokenizer"
    print(
        f"Chosen to fit {fitted.limit_bytes:,} bytes{kept} "
        f"(the smallest possible: {fitted.smallest_bytes:,}):"
    )
    table = _table()
    for name in ("part", "layers", "type"):
        table.add_column(name, no_wrap=name != "layers")
    for name in ("bytes", "of the loss"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("the next type up")
    group = ""
    for line in fitted.lines:
        name = "" if line.group == group else line.group
        group = line.group
        share = f"{line.loss_share:.1%}"
        table.add_row(name, line.layers, line.type, f"{line.size_bytes:,}", share, line.why)
    _print(table)


def as_json(preview: "Preview") -> str:
    """Give all of the preview as one JSON object."""
    values = asdict(preview)
    values["bits_per_weight"] = round(preview.bits_per_weight, 4)
    for value, part in zip(values["parts"], preview.parts, strict=True):
        value["bits_per_weight"] = round(part.bits_per_weight, 4)
    values["expected_s"] = round(preview.expected_s, 3)
    return json.dumps(values)


def _head(preview: "Preview") -> list[str]:
    active = f"{count(preview.active_parameters)} active"
    draft = f", {count(preview.mtp_parameters)} in the MTP layer" if preview.mtp_parameters else ""
    files = f" in {preview.files} files" if preview.files > 1 else ""
    return [
        f"{clean(preview.name)} as {_kind(preview)}: {preview.architecture}, "
        f"{preview.size_bytes:,} bytes ({rough_size(preview.size_bytes)}){files}, "
        f"{preview.bits_per_weight:.2f} bits a weight",
        f"{preview.parameters:,} parameters ({active}{draft}) in {preview.tensors:,} tensors",
    ]


def _kind(preview: "Preview") -> str:
    if preview.fitted is None:
        return preview.type
    return f"a mixture for {rough_size(preview.fitted.limit_bytes)}"


def _foot(preview: "Preview") -> list[str]:
    lines = []
    if preview.left_out_parameters:
        lines.append(
            f"Left out: {preview.left_out_parameters:,} stored parameters: copies, what the "
            "runtime does not need, what --mtp leaves out."
        )
    if not preview.has_weights:
        lines.append(
            f"No weights here: shapes are those that the config asks for "
            f"({rough_size(preview.source_bytes)} as released)."
        )
    if not preview.has_tokenizer:
        lines.append(
            f"No tokenizer here: its metadata comes on top. The tensors take exactly "
            f"{preview.data_bytes:,} bytes."
        )
    threads = "1 thread" if preview.threads == 1 else f"{preview.threads} threads"
    lines.append(
        f"Expected time: {rough_time(preview.expected_s)} on {threads} (an estimate: the kernels "
        "measured just now, storage not)."
    )
    return lines


def count(parameters: int) -> str:
    """Give a number of parameters as people say it: 37 B, 1.36 M."""
    size = float(parameters)
    for unit in ("", " k", " M", " B"):
        if size < 1000 or unit == " B":
            break
        size /= 1000
    digits = 0 if size >= 100 or not unit else 1 if size >= 10 else 2
    return f"{size:.{digits}f}{unit}"


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="bold")


def _parts_table(parts: "tuple[PartPreview, ...]") -> Table:
    table = _table()
    table.add_column("part", no_wrap=True)
    for name in ("tensors", "parameters", "bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("type", no_wrap=True)
    table.add_column("why")
    for part in parts:
        for index, use in enumerate(part.types):
            table.add_row(
                part.group if index == 0 else "",
                f"{use.tensors:,}",
                f"{use.parameters:,}",
                f"{use.size_bytes:,}",
                use.type,
                Text(_why(use)),
            )
    return table


def _why(use: "TypeUse") -> str:
    """Give the reasons; those that differ by a number only are given once."""
    alike: dict[str, list[str]] = {}
    for reason in use.reasons:
        alike.setdefault(re.sub(r"\d+", "#", reason), []).append(reason)
    return "; ".join(
        reasons[0] + (f", and {len(reasons) - 1} more like it" if len(reasons) > 1 else "")
        for reasons in alike.values()
    )


def _print(table: Table) -> None:
    columns = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else COLUMNS
    console = Console(
        file=sys.stdout,
        width=max(columns, LEAST_COLUMNS),
        color_system="auto" if has_colours(sys.stdout) else None,
        highlight=False,
    )
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))
