"""`localseek ask`: one prompt, one answer.

The prompt is made of the words given, the files named and what is piped in; the answer goes to
stdout, everything else to stderr.
"""

import argparse
import sys
from pathlib import Path

from localseek.commands.parts.replies import reply_object, to_json
from localseek.commands.parts.saving import begun
from localseek.commands.parts.session import Session, stream
from localseek.errors import EngineError, LocalseekError, UsageError
from localseek.options import Request
from localseek.store.history.recorder import Recorder
from localseek.terminal import settings
from localseek.terminal.messages import is_terminal, prepare_streams
from localseek.text.conversation import Reply

EXAMPLES = """examples:
  localseek ask "What is 348 + 257?"
  cat notes.txt | localseek ask "Summarize:"
  localseek ask "What does this do?" -f main.py -f util.py
  localseek ask --continue "And 56 more?"
  localseek ask --schema person.json "Invent a person." | jq .name
  localseek ask --json "Which is larger, 9.9 or 9.11?" | jq -r .answer
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("prompt", nargs="*", metavar="PROMPT", help="the question; - reads standard input")
    add("-f", "--file", action="append", default=[], metavar="FILE",
        help="a text file to add to the prompt (repeatable); - is standard input")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no reasoning, progress, statistics on stderr")
    add("--stats", action=argparse.BooleanOptionalAction, default=None,
        help="a last line with counts and speeds (default: on a terminal)")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object")
    add("--continue", dest="continued", action="store_true",
        help="go on with the last saved conversation, and save the answer there")  # fmt: skip
    add("--save", action="store_true", help="save prompt and answer, to go on with later")
    settings.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer the prompt."""
    prepare_streams()
    prompt = _prompt(arguments.prompt, arguments.file)
    stats = arguments.stats
    if stats is None:
        stats = is_terminal(sys.stderr) and not arguments.quiet and not arguments.json
    name = "" if arguments.continued else None
    with begun(arguments, name, save=arguments.save) as start:
        options = start.options
        request = options.request_for(start.conversation.messages(prompt))
        with Session(options, arguments.quiet) as session:
            reply = _answer(session, request, stats, arguments.json, start.recorder, prompt)
            mend = "" if session.alive else "Run the command again to start a new one."
    if reply.finish_reason == "failed":
        raise UsageError(reply.error) if reply.wrong_use else EngineError(reply.error, mend)
    if arguments.json:
        print(to_json(reply_object(options.model, reply)))
    if reply.never_answered or reply.error:
        return 1  # whoever reads the answer relies on its form
    return 130 if reply.finish_reason == "cancelled" else 0


def _answer(
    session: Session, request: Request, stats: bool, silent: bool, recorder: Recorder | None,
    prompt: str,
) -> Reply:  # fmt: skip
    """Run the request, and save prompt and answer if they are recorded."""
    if recorder is None:
        return stream(session, request, stats=stats, silent=silent)
    recorder.asked(prompt)
    try:
        return stream(session, request, stats=stats, silent=silent, observe=recorder.answered)
    except LocalseekError as error:
        recorder.failed(str(error))
        raise


def _prompt(words: list[str], files: list[str]) -> str:
    """Join what was asked, the files and what is piped in; raises UsageError if that is empty."""
    piped = "" if is_terminal(sys.stdin) and "-" not in (*words, *files) else _standard_input()
    parts = [
        " ".join(word for word in words if word != "-"),
        *(piped if name == "-" else read_text(name) for name in files),
    ]
    if "-" not in files:
        parts.append(piped)
    prompt = "\n\n".join(part for part in parts if part.strip())
    if not prompt:
        raise UsageError("The prompt is empty.", 'Try: localseek ask "What is 348 + 257?"')
    return prompt


def _standard_input() -> str:
    return _decode(sys.stdin.buffer.read(), "standard input")


def read_text(name: str) -> str:
    """Read a UTF-8 text file without its last line break; raises UsageError that names it."""
    try:
        return _decode(Path(name).read_bytes(), name)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}.") from error


def _decode(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8-sig")
        return text.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name} is not valid UTF-8 (byte {error.start:,} is {content[error.start]:#04x}).",
            "Convert it first, for example with iconv.",
        ) from error
