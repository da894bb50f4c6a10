"""A conversion with a meter, and its result in words: for every verb that converts.

Takes a source and options, gives the converters' result. The meter is a bar on a terminal, else a
line now and then.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localseek.errors import LocalseekError, UsageError
from localseek.system.sizes import rough_size, rough_time
from localseek.terminal.messages import Line, note, one_line

if TYPE_CHECKING:
    from converters import ConvertError, ConvertOptions, ConvertResult, Progress
    from converters.source.shards import Shards

BAR = 24
SECONDS_BETWEEN_LINES = 10.0  # where no terminal shows a bar


def convert_shown(
    source: Path, target: Path, options: "ConvertOptions", meter: "Meter",
    shards: "Shards | None" = None,
) -> "ConvertResult":  # fmt: skip
    """Convert with a meter; raises LocalseekError, and tells what Ctrl-C has left."""
    from converters import ConvertError, convert

    try:
        result = convert(source, target, options, meter.show, note, shards)
    except ConvertError as error:
        meter.end()
        raise as_ours(error) from error
    except KeyboardInterrupt:
        meter.end()
        begun = meter.last is not None or shards is None
        note(_stopped(meter.last) if begun else "Stopped; the same command goes on.")
        raise
    meter.end()
    for warning in result.warnings:
        note(f"warning: {warning}")
    return result


def as_ours(error: "ConvertError") -> LocalseekError:
    """Return a converter's error as the command line's, which knows wrong use by exit status 2."""
    from converters import OptionError

    text = f"{str(error).rstrip('.')}."
    return UsageError(text) if isinstance(error, OptionError) else LocalseekError(text)


class Meter:
    """The progress of a conversion on stderr: a bar on a terminal, else a line now and then."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._line = Line()
        self._next = 0.0 if self._line.live else SECONDS_BETWEEN_LINES
        self.last: Progress | None = None

    def show(self, progress: "Progress") -> None:
        """Draw how far it is, at most ten times a second."""
        if self.last is None and progress.resumed_bytes:
            share = _share(progress)
            note(f"Going on where it stopped, at {share:.0%}.")
        self.last = progress
        now = time.monotonic()
        elapsed, done, total = progress.elapsed_s, progress.done_bytes, progress.total_bytes
        if self._quiet or (now if self._line.live else elapsed) < self._next:
            return
        self._next = now + 0.1 if self._line.live else elapsed + SECONDS_BETWEEN_LINES
        share = _share(progress)
        rate = (done - progress.resumed_bytes) / elapsed if elapsed > 0 else 0.0
        left = f", {rough_time((total - done) / rate)} left" if rate and elapsed > 1 else ""
        text = (
            f"{share:4.0%} {rough_size(done)} of {rough_size(total)}, {rate / 1e6:.0f} MB/s{left}"
        )
        if self._line.live:
            full = round(share * BAR)
            text = f"{'█' * full}{'░' * (BAR - full)} {text}  {one_line(progress.tensor)}"
        self._line.show(text)

    def end(self) -> None:
        """Take the bar away."""
        self._line.end()


def _share(progress: "Progress") -> float:
    return progress.done_bytes / progress.total_bytes if progress.total_bytes else 1.0


def _stopped(last: "Progress | None") -> str:
    if last is None:
        return "Stopped; nothing was written."
    return f"Stopped at {_share(last):.0%}; run the same command to go on."


def summary(result: "ConvertResult") -> str:
    """Say on one line what was written."""
    types = ", ".join(f"{count} {name}" for name, count in sorted(result.types.items()))
    files = f" and {len(result.parts) - 1} more files" if result.parts else ""
    return (
        f"{result.path}{files}: {result.architecture}, {rough_size(result.size_bytes)}, "
        f"{result.tensors} tensors ({types}), {rough_time(result.elapsed_s)}"
    )


def as_object(result: "ConvertResult") -> dict[str, Any]:
    """Give a result as a program reads it."""
    return {
        "path": str(result.path),
        **({"parts": [str(part) for part in result.parts]} if result.parts else {}),
        "architecture": result.architecture,
        "size_bytes": result.size_bytes,
        "tensors": result.tensors,
        "types": result.types,
        "elapsed_s": round(result.elapsed_s, 3),
        "warnings": list(result.warnings),
        **({"fitted": asdict(result.fitted)} if result.fitted is not None else {}),
    }
