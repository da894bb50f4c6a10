"""`localseek batch`: a file of prompts → a file of answers, several at once, resumable.

Rows are written as they are answered, each with its `index` in IN. Run again, it skips what is
answered and tries failed rows again. Exit status 3 says that some rows failed; each such row says
why in OUT.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from localseek.batch import manifest, openai_rows
from localseek.batch.output import Output, Printed, check_paths
from localseek.batch.rows import KINDS, STANDARD, Row, check_template, read_rows
from localseek.commands.parts.batch_progress import Counts, shown
from localseek.commands.parts.replies import reply_object, to_json
from localseek.commands.parts.session import Session, cancelled_by_interrupt
from localseek.errors import UsageError
from localseek.options import GenerationOptions, Request
from localseek.serve.errors import ApiError
from localseek.system.sizes import rough_time
from localseek.terminal import settings
from localseek.terminal.messages import note, prepare_streams
from localseek.text.conversation import Reply
from localseek.text.messages import messages_of

EXAMPLES = """examples:
  localseek batch questions.jsonl answers.jsonl
  localseek batch questions.txt answers.jsonl --temperature 0 --max-tokens 500
  localseek batch reviews.csv answers.jsonl --template "Summarize in a sentence: {review}"
  make-questions | localseek batch - - | jq -r .answer
IN is JSON Lines, plain text (a prompt a line), CSV or TSV (with --template, or a column prompt), or
an OpenAI batch file. A JSON row is a string, or an object with prompt or messages that may have id,
system, think, effort, stop, the generation options with numbers, and schema (an object), grammar (a
text: GBNF or Lark) or logit_bias ({"TOKEN": BIAS}).
"""
PARTLY, INTERRUPTED = 3, 130
ALIKE = 256  # characters that rows have in common whose reading is worth sharing


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("source", metavar="IN", type=Path, help="the prompts; - is standard input")
    add("target", metavar="OUT.jsonl", type=Path,
        help="answers; appended to, never overwritten. - writes to standard output, where "
        "an interrupted run begins again")  # fmt: skip
    add("--template", default="", metavar="TEXT",
        help='a prompt with {column} where a value goes, such as "Translate: {text}"')  # fmt: skip
    add("--input", choices=KINDS, help="what IN is, where its name does not say so")
    add("--in-order", action="store_true", help="write the answers in the order of the rows")
    add("--restart", action="store_true", help="drop the answers in OUT and begin again")
    add("-q", "--quiet", action="store_true", help="no progress on stderr")
    add("--json", action="store_true",
        help="progress on stderr as JSON lines, a summary as one JSON object")  # fmt: skip
    settings.add_parallel_argument(parser, "rows", 0)
    settings.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer what is not answered yet."""
    prepare_streams()
    options = settings.options_from(arguments)
    parallel = settings.parallel_from(arguments, 0)
    options = replace(options, load=replace(options.load, parallel=parallel))
    check_template(arguments.template)
    check_paths(arguments.source, arguments.target)
    rows = read_rows(arguments.source, arguments.input, arguments.template)
    if not rows:
        raise UsageError(f"{arguments.source} has no rows.", "Each line is one prompt.")
    printed = arguments.target == STANDARD
    with Printed() if printed else Output(arguments.target) as output:
        work = Work(options, output, arguments)
        if isinstance(output, Output) and not arguments.restart:
            manifest.check(output.path, work.manifest)
        earlier = output.resume(rows, arguments.restart)
        if earlier.torn and not arguments.quiet:
            note("The last line was torn by the end of an earlier run; its row is answered again.")
        todo = [row for row in rows if row.index not in earlier.answered]
        work.counts.rows, work.counts.before = len(rows), len(earlier.answered)
        stopped = work.answer_all(todo) if todo else False
    summary = work.counts.summary(stopped)
    if arguments.json:
        print(to_json(summary), file=sys.stderr if printed else sys.stdout)
    elif not arguments.quiet:
        note(_closing(summary))
    return INTERRUPTED if stopped else PARTLY if work.counts.failed else 0


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
    noun = "row" if summary["rows"] == 1 else "rows"
    return f"{summary['rows']} {noun}: {', '.join(parts)} ({took})."


class Work:
    """The run over the rows that are left: an engine, what is written, and the progress."""

    def __init__(
        self, options: GenerationOptions, output: Output | Printed, arguments: argparse.Namespace
    ) -> None:
        self.options, self.output = options, output
        self.quiet, self._json = arguments.quiet, arguments.json
        self.counts = Counts()
        self._in_order: bool = arguments.in_order
        self._order: list[int] = []  # indices still to be written, the next one last
        self._held: dict[int, dict[str, Any]] = {}  # answers to later rows than the next one
        self._session = Session(options, self.quiet)
        self._takes_effort = self._session.takes_effort
        self.manifest = manifest.describe(options, self._session.path, arguments.template)

    def answer_all(self, todo: list[Row]) -> bool:
        """Answer the rows and write each; tell whether Ctrl-C ended it early."""
        self._order = [row.index for row in reversed(todo)]
        try:
            with self._session as session:
                engine = session.start()
                self.counts.begin(engine.info.parallel)
                if isinstance(self.output, Output):
                    manifest.write(self.output.path, self.manifest)
                with (
                    shown(self.counts, self.quiet, self._json),
                    engine.generate_all(self._requests(todo), self._died) as batch,
                    cancelled_by_interrupt(batch.cancel, engine.kill) as interrupted,
                ):
                    for row, reply in batch:
                        if reply.finish_reason != "cancelled":
                            self._write(row, self._entry(row, reply))
                return interrupted()
        except KeyboardInterrupt:
            return True

    def _requests(self, todo: list[Row]) -> Iterator[tuple[Row, Request]]:
        """Give what the engine is asked for each row; a bad row's error is written at once.

        Rows that begin alike follow each other, so that what they share is read once.
        """
        ready = []
        for row in todo:
            try:
                ready.append((row, self._request(row)))
            except (UsageError, ApiError) as error:
                self.counts.failed += 1
                self._write(row, self._failure(row, str(error)))
        yield from ready if self._in_order else _grouped(ready)

    def _request(self, row: Row) -> Request:
        """Give what the engine is asked for a row; raises UsageError or ApiError."""
        row.check()
        if row.openai:
            body = row.fields["body"]
            return openai_rows.request_of(body, self.options, self._takes_effort)
        options = settings.with_row(self.options, row.fields)
        return options.request_for(messages_of(row.fields, options.system))

    def _write(self, row: Row, entry: dict[str, Any]) -> None:
        """Write a row's answer, or hold it until those before it are written."""
        if not self._in_order:
            self.output.append(entry)
            return
        self._held[row.index] = entry
        while self._order and self._order[-1] in self._held:
            self.output.append(self._held.pop(self._order.pop()))

    def _entry(self, row: Row, reply: Reply) -> dict[str, Any]:
        """Give what is written for a row."""
        error = reply.error
        if reply.never_answered:
            error = "The model stopped within its reasoning: there is no answer."
        if error:
            self.counts.failed += 1
        else:
            self.counts.answered += 1
            self.counts.tokens += reply.stats.generated_tokens if reply.stats else 0
        if error and (row.openai or reply.finish_reason == "failed"):
            return self._failure(row, error)
        if row.openai:
            return openai_rows.answer(_head(row), self.options.model, reply)
        found = {**_head(row), **reply_object(self.options.model, reply)}
        return {**found, "error": error} if error else found

    def _failure(self, row: Row, error: str) -> dict[str, Any]:
        if row.openai:
            return openai_rows.failure(_head(row), error)
        return {**_head(row), "error": error}

    def _died(self, count: int) -> None:
        if not self.quiet:
            note(
                "The engine died; the row is tried once more."
                if count == 1
                else f"The engine died; {count} rows are tried once more, one after another."
            )


def _grouped(ready: list[tuple[Row, Request]]) -> Iterator[tuple[Row, Request]]:
    """Give rows that begin alike after each other, all else in their order."""
    groups: dict[str, list[tuple[Row, Request]]] = {}
    for pair in ready:
        begins = ""
        for one in pair[1].messages:
            begins += f"{one.role}\0{one.content}\0"[: ALIKE - len(begins)]
        groups.setdefault(begins, []).append(pair)
    for group in groups.values():
        yield from group


def _head(row: Row) -> dict[str, Any]:
    """Give what every line begins with: the row's place, its digest, and its id if it has one."""
    head: dict[str, Any] = {"index": row.index, "key": row.key}
    if "id" in row.fields:
        head["id"] = row.fields["id"]
    return head
