"""`localseek chat`: a conversation line by line, for screen readers, dumb terminals and scripts.

Prompts come from the terminal, or one a line from a pipe. Ctrl-C stops the answer and not the
program; an engine that dies is started again by the next prompt. What is said is saved as it comes,
unless --no-save says not to.
"""

import argparse
import sys
from dataclasses import replace
from typing import Literal

from localseek.commands import chat_words
from localseek.commands.parts.replies import reply_object, to_json
from localseek.commands.parts.saving import Begun, begun
from localseek.commands.parts.session import Session, stream
from localseek.errors import LocalseekError
from localseek.store.history.recorder import Recorder
from localseek.system import environment
from localseek.terminal import settings
from localseek.terminal.messages import (
    complain,
    has_colours,
    is_terminal,
    note,
    prepare_streams,
)
from localseek.text.conversation import Reply

EXAMPLES = """examples:
  localseek chat
  localseek chat --continue
  localseek chat --model v2-lite --system "Answer briefly."
  printf '%s\\n' "What is 12 x 34?" "And 56 more?" | localseek chat
"""
INTERRUPTED = 130
How = Literal["asked", "again", "instead", "on"]  # a new prompt, or one beside the last


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="no reasoning, progress, statistics on stderr")
    add("--json", action="store_true", help="print each reply as a JSON object on a line")
    add("--continue", dest="continued", nargs="?", const="", metavar="NAME",
        help="go on with the last conversation, or the one with this number or title")  # fmt: skip
    add("--no-save", action="store_true", help="keep nothing of this conversation")
    settings.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Talk until the user leaves."""
    prepare_streams()
    with (
        begun(arguments, arguments.continued, save=not arguments.no_save) as start,
        Session(start.options, arguments.quiet) as session,
    ):
        return Chat(session, start, arguments.json).run()


class Chat:
    """The conversation and what the user has changed in it."""

    def __init__(self, session: Session, start: Begun, json: bool) -> None:
        self.session, self.json = session, json
        self.options = start.options
        self.conversation, self.recorder, self.title = (
            start.conversation, start.recorder, start.title
        )  # fmt: skip
        self.terminal = is_terminal(sys.stdin)
        self.to_edit = ""  # stands in the next line that is read, to be changed
        self.failed = False

    def run(self) -> int:
        """Read and answer prompts to the end; give the exit status."""
        self._welcome()
        interrupts = 0
        while True:
            try:
                editing, prompt = bool(self.to_edit), self._read()
                interrupts = 0
                if prompt.rstrip() in ("/quit", "/exit"):
                    break
                if prompt.startswith("/"):
                    chat_words.do(self, prompt)
                elif prompt.strip() and editing:
                    self.answer_last("instead", prompt)
                elif prompt.strip():
                    self.answer(prompt[1:] if prompt.startswith(" /") else prompt)
            except EOFError:
                break
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > 1 or not self.terminal:
                    return INTERRUPTED
                note("\nCtrl-C again, or Ctrl-D, leaves.")
        if self.terminal:
            print(file=sys.stderr)
        return 1 if self.failed and not self.terminal else 0

    def _welcome(self) -> None:
        if not self.terminal:
            return
        try:
            import readline
        except ImportError:  # not every Python has it; plain lines work too
            pass
        else:  # a paste of several lines arrives as one prompt, where the terminal marks it
            dumb = environment.terminal_kind() == "dumb"
            readline.parse_and_bind(f"set enable-bracketed-paste {'off' if dumb else 'on'}")
        self.session.start()
        note(f"{self.session.name} is ready. /help lists the words, Ctrl-D leaves.")
        if self.title:
            count = len(self.conversation.turns)
            note(f"Going on with {self.title!r}, {count} turn{'' if count == 1 else 's'} so far.")

    def _read(self) -> str:
        """Read one prompt; lines that end with a backslash are joined to the next."""
        lines: list[str] = []
        while True:
            if self.terminal:
                # Without colours, as with a screen reader, a word is better than a sign.
                sign = ("> " if has_colours(sys.stderr) else "You: ") if not lines else ". "
                line = _input(sign, self.to_edit)
                self.to_edit = ""
            else:
                line = sys.stdin.readline()
                if not line:
                    if lines:
                        return "\n".join(lines)
                    raise EOFError
                line = line.rstrip("\r\n")
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def answer(self, prompt: str, how: How = "asked", begun: Reply | None = None) -> None:
        """Answer a prompt and print the reply; `begun` goes on where it was cut off."""
        request = self.options.request_for(self.conversation.messages(prompt))
        if begun is not None:
            request = replace(
                request, begun_reasoning=begun.reasoning, begun_answer=begun.answer
            )
        show_stats = self.terminal and is_terminal(sys.stderr) and not self.session.quiet
        recorder = self.recorder
        if recorder is not None:
            _record(recorder, how, prompt, begun)

        def observe(reply: Reply) -> None:
            if recorder is not None:
                recorder.answered(joined(begun, reply))

        try:
            reply = stream(
                self.session, request, stats=show_stats, silent=self.json, observe=observe
            )
        except LocalseekError as error:
            if recorder is not None:
                recorder.failed(str(error))
            self.complain(str(error))
            return
        reply = joined(begun, reply)
        if self.json:
            print(to_json(reply_object(self.options.model, reply)), flush=True)
        self.conversation.add(prompt, reply)
        if reply.finish_reason == "failed":
            kept = "" if self.session.alive else " The conversation is kept: just ask again."
            self.complain(reply.error + kept)
        elif reply.error:
            self.failed = True  # the answer is there, but not of the form that was asked for
        elif reply.finish_reason == "cancelled":
            note("Stopped. /continue lets it go on.")
        if self.session.interrupted and not self.terminal:
            raise KeyboardInterrupt  # there is nobody to ask for the next prompt
        if self.terminal:
            print(file=sys.stderr)  # turns are easier to tell apart

    def answer_last(
        self, how: How, prompt: str | None = None, begun: Reply | None = None
    ) -> None:
        """Answer the last prompt, or another in its place; its turn stays if that fails."""
        turns = self.conversation.turns
        last = turns.pop()
        before = len(turns)
        place = self.recorder.place if self.recorder is not None else None
        try:
            self.answer(last.prompt if prompt is None else prompt, how, begun)
        finally:
            if len(turns) == before or turns[-1].reply.finish_reason == "failed":
                turns[before:] = [last]
                if self.recorder is not None and place is not None:
                    self.recorder.go_back(place)

    def switch(self, model: str) -> None:
        """Answer with another model from now on; raises ModelError if there is none."""
        options = replace(self.options, model=model)
        session = Session(options, self.session.quiet)
        self.session.close()
        self.session, self.options = session, options
        if self.recorder is not None:
            self.recorder.set_model(model)

    def complain(self, text: str) -> None:
        """Say what went wrong; a script is told by the exit status."""
        self.failed = True
        complain(text)


def joined(begun: Reply | None, reply: Reply) -> Reply:
    """Give a reply with what it goes on after."""
    if begun is None:
        return reply
    return replace(
        reply, reasoning=begun.reasoning + reply.reasoning, answer=begun.answer + reply.answer
    )


def _record(recorder: Recorder, how: How, prompt: str, begun: Reply | None) -> None:
    if how == "again":
        recorder.asked_again()
    elif how == "instead":
        recorder.asked_instead(prompt)
    elif begun is not None:
        recorder.goes_on(begun)
    else:
        recorder.asked(prompt)


def _input(sign: str, begun: str = "") -> str:
    """Read a line from the terminal, `begun` already in it; the sign stays off stdout."""
    if begun:
        import readline

        readline.set_startup_hook(lambda: readline.insert_text(begun))
    try:
        if is_terminal(sys.stdout):
            return input(sign)
        if is_terminal(sys.stderr):
            sys.stderr.write(sign)
            sys.stderr.flush()
        return input()
    finally:
        if begun:
            readline.set_startup_hook(None)
