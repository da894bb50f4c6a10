"""`localseek batch`: a file of prompts → a file of answers, several at once, resumable.

Rows are written as they are answered, each with its `index` in IN. Run again, it skips what is
answered and tries failed rows again. Exit status 3 says that some rows failed; each such row says
why in OUT.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from localseek import batch
from localseek.commands.parts.replies import reply_object, to_json
from localseek.commands.parts.session import Session
from localseek.commands.parts.several import Several
from localseek.errors import UsageError
from localseek.options import GenerationOptions, Request
from localseek.system.sizes import rough_time
from localseek.terminal import settings
from localseek.terminal.messages import Line, note, prepare_streams
from localseek.text.conversation import Reply

EXAMPLES = """examples:
  localseek batch questions.jsonl answers.jsonl
  localseek batch questions.jsonl answers.jsonl --temperature 0 --max-tokens 500
  make-questions | localseek batch - - | jq -r .answer
  echo '{"id": "a1", "prompt": "What is 6 x 7?", "seed": 1}' > questions.jsonl
Each row has prompt or messages, and may have id, system, think, stop, the generation options with
numbers, and schema (an object), grammar (a text) or logit_bias ({"TOKEN": BIAS}).
"""
PARTLY, INTERRUPTED = 3, 130
SECONDS_BETWEEN_LINES = 10.0  # where no terminal shows the progress


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("source", metavar="IN.jsonl", type=Path,
        help="a JSON object with a prompt on each line; - is standard input")  # fmt: skip
    add("target", metavar="OUT.jsonl", type=Path,
        help="answers; appended to, never overwritten. - writes to standard output, where "
        "an interrupted run begins again")  # fmt: skip
    add("--force", action="store_true", help="drop answers in OUT that are to other input")
    add("-q", "--quiet", action="store_true", help="no progress on stderr")
    add("--json", action="store_true", help="print a summary as one JSON object")
    settings.add_parallel_argument(parser, "rows", 0)
    settings.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer what is not answered yet."""
    prepare_streams()
    options = settings.options_from(arguments)
    parallel = settings.parallel_from(arguments, 0)
    options = replace(options, load=replace(options.load, parallel=parallel))
    batch.check_paths(arguments.source, arguments.target)
    rows = batch.read_rows(arguments.source)
    if not rows:
        raise UsageError(f"{arguments.source} has no rows.", "Each line is one JSON object.")
    printed = arguments.target == batch.STANDARD
    with batch.Printed() if printed else batch.Output(arguments.target) as output:
        earlier = output.resume(rows, arguments.force)
        if earlier.torn and not arguments.quiet:
            note("The last line was torn by the end of an earlier run; its row is answered again.")
        todo = [row for row in rows if row.index not in earlier.answered]
        work = Work(options, output, len(rows), len(earlier.answered), arguments.quiet)
        stopped = work.answer_all(todo) if todo else False
    summary = {
        "rows": len(rows), "skipped": len(earlier.answered), "answered": work.answered,
        "failed": work.failed, "interrupted": stopped, "seconds": round(work.seconds, 1),
        "parallel": work.parallel, "generated_tokens": work.tokens,
        "tokens_per_second": round(work.tokens / max(work.answering_s, 1e-9), 1),
    }  # fmt: skip
    if arguments.json:
        print(to_json(summary), file=sys.stderr if printed else sys.stdout)
    elif not arguments.quiet:
        note(_closing(summary))
    return INTERRUPTED if stopped else PARTLY if work.failed else 0


def _closing(summary: dict[str, Any]) -> str:
    parts = [f"{summary['answered']} answered"]
    if summary["skipped"]:
        parts.append(f"{summary['skipped']} were answered before")
    if summary["failed"]:
        parts.append(f"{summary['failed']} failed: run it again to retry them")
    if summary["interrupted"]:
        parts.append("stopped: the same command goes on from here")
    took = rough_time(summary["seconds"])
    if summary["generated_tokens"]:
        took += f", {summary['tokens_per_second']:,.0f} tok/s"
    return f"{summary['rows']} rows: {', '.join(parts)} ({took})."


class Work:
    """The run over the rows that are left: an engine, counts, and the line of progress."""

    def __init__(
        self, options: GenerationOptions, output: batch.Output | batch.Printed, total: int,
        before: int, quiet: bool,
    ) -> None:  # fmt: skip
        self.options, self.output = options, output
        self.total, self.before, self.quiet = total, before, quiet
        self.answered = self.failed = self.tokens = 0
        self.parallel = 1  # until the engine has said
        self._began = 0.0  # when the engine was ready
        self._started = time.monotonic()
        self._line = Line()
        self._next_line_s = SECONDS_BETWEEN_LINES

    @property
    def seconds(self) -> float:
        """Give the time since the run began."""
        return time.monotonic() - self._started

    @property
    def answering_s(self) -> float:
        """Give the time since the engine was ready."""
        return time.monotonic() - self._began if self._began else 0.0

    def answer_all(self, todo: list[batch.Row]) -> bool:
        """Answer the rows and write each; tell whether Ctrl-C ended it early."""
        try:
            with Session(self.options, self.quiet) as session:
                info = session.start().info
                self.parallel, self._began = info.parallel if info else 1, time.monotonic()
                several = Several[batch.Row](session, self._died)
                self._show(0, len(todo))
                for row, reply in several.replies(self._requests(todo)):
                    if reply.finish_reason != "cancelled":
                        self.output.append(self._entry(row, reply))
                        self._show(self.answered + self.failed, len(todo))
                return session.interrupted
        except KeyboardInterrupt:
            return True
        finally:
            self._line.end()

    def _requests(self, todo: list[batch.Row]) -> Iterator[tuple[batch.Row, Request]]:
        """Give what the engine is asked for each row; a bad row's error is written at once."""
        for row in todo:
            try:
                fields = row.parse()
                options = settings.with_row(self.options, fields)
                request = options.request_for(batch.messages_of(fields, options.system))
            except UsageError as error:
                self.failed += 1
                self.output.append({**self._head(row), "error": str(error)})
            else:
                yield row, request

    def _head(self, row: batch.Row) -> dict[str, Any]:
        head: dict[str, Any] = {"index": row.index, "key": row.key}
        with contextlib.suppress(UsageError):  # the caller tells of it
            fields = row.parse()
            if "id" in fields:
                head["id"] = fields["id"]
        return head

    def _entry(self, row: batch.Row, reply: Reply) -> dict[str, Any]:
        """Give what is written for a row."""
        if reply.finish_reason == "failed":
            self.failed += 1
            return {**self._head(row), "error": reply.error}
        if reply.never_answered:
            self.failed += 1
            error = "The model stopped within its reasoning: there is no answer."
            reply_fields = reply_object(self.options.model, reply)
            return {**self._head(row), **reply_fields, "error": error}
        self.answered += 1
        self.tokens += reply.stats.generated_tokens if reply.stats else 0
        return {**self._head(row), **reply_object(self.options.model, reply)}

    def _died(self, count: int) -> None:
        if not self.quiet:
            self._line.end()
            note(
                "The engine died; the row is tried once more."
                if count == 1
                else f"The engine died; {count} rows are tried once more, one after another."
            )

    def _show(self, number: int, count: int) -> None:
        if (
            self.quiet
            or number == count
            or (not self._line.live and self.seconds < self._next_line_s)
        ):
            return
        self._next_line_s = self.seconds + SECONDS_BETWEEN_LINES
        text = f"{self.before + number} of {self.total} rows"
        if self.parallel > 1:
            text += f", {self.parallel} at once"
        if number:
            each = self.seconds / number
            rate = f"{1 / each:.1f} rows/s" if each < 1 else f"{each:.1f} s a row"
            text += f", {rate}, {rough_time(each * (count - number))} left"
        if self.failed:
            text += f", {self.failed} failed"
        self._line.show(text)
