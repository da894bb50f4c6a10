"""`localseek chat`: a conversation line by line, for screen readers, dumb terminals and scripts.

Prompts come from the terminal, or one a line from a pipe. Ctrl-C stops the answer and not the
program; an engine that dies is started again by the next prompt. What is said is saved as it comes,
unless --no-save says not to.
"""

import argparse
import sys
from dataclasses import replace

from localseek.commands.replies import reply_object, to_json
from localseek.commands.saving import Begun, begun
from localseek.commands.session import Session, stream
from localseek.errors import LocalseekError
from localseek.system import environment
from localseek.terminal import settings
from localseek.terminal.messages import (
    complain,
    has_colours,
    is_terminal,
    note,
    prepare_streams,
    stats_line,
)
from localseek.text.conversation import Reply

EXAMPLES = """examples:
  localseek chat
  localseek chat --continue
  localseek chat --model v2-lite --system "Answer briefly."
  printf '%s\\n' "What is 12 x 34?" "And 56 more?" | localseek chat
"""
WORDS = """/help           this list
/new            start a new conversation
/system TEXT    set the system prompt; without TEXT: none
/think on|off   let the model reason first, or not; /think auto: as it does by itself
/retry          answer the last prompt again
/stats          counts and speeds of the last answer
/quit           leave; Ctrl-D too
A prompt that begins with / is sent if a space stands before it.
A line that ends with \\ goes on in the next. Ctrl-C stops an answer."""
INTERRUPTED = 130


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
        self.failed = False

    def run(self) -> int:
        """Read and answer prompts to the end; give the exit status."""
        self._welcome()
        interrupts = 0
        while True:
            try:
                prompt = self._read()
                interrupts = 0
                if prompt.rstrip() in ("/quit", "/exit"):
                    break
                if prompt.startswith("/"):
                    self._command(prompt)
                elif prompt.strip():
                    self._answer(prompt[1:] if prompt.startswith(" /") else prompt)
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
                line = _input(sign)
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

    def _answer(self, prompt: str, again: bool = False) -> None:
        request = self.options.request_for(self.conversation.messages(prompt))
        show_stats = self.terminal and is_terminal(sys.stderr) and not self.session.quiet
        recorder = self.recorder
        if recorder is not None:
            recorder.asked_again() if again else recorder.asked(prompt)
        observe = recorder.answered if recorder is not None else _unseen
        try:
            reply = stream(
                self.session, request, stats=show_stats, silent=self.json, observe=observe
            )
        except LocalseekError as error:
            if recorder is not None:
                recorder.failed(str(error))
            self._complain(str(error))
            return
        if self.json:
            print(to_json(reply_object(self.options.model, reply)), flush=True)
        self.conversation.add(prompt, reply)
        if reply.finish_reason == "failed":
            kept = "" if self.session.alive else " The conversation is kept: just ask again."
            self._complain(reply.error + kept)
        elif reply.finish_reason == "cancelled":
            note("Stopped.")
        if self.session.interrupted and not self.terminal:
            raise KeyboardInterrupt  # there is nobody to ask for the next prompt
        if self.terminal:
            print(file=sys.stderr)  # turns are easier to tell apart

    def _retry(self) -> None:
        """Answer the last prompt again; its turn stays unless there is a new answer."""
        turns = self.conversation.turns
        last = turns.pop()
        before = len(turns)
        try:
            self._answer(last.prompt, again=True)
        finally:
            if len(turns) == before or turns[-1].reply.finish_reason == "failed":
                turns[before:] = [last]

    def _complain(self, text: str) -> None:
        self.failed = True
        complain(text)

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        turns = self.conversation.turns
        if word == "/help":
            note(WORDS)
        elif word == "/new":
            turns.clear()
            if self.recorder is not None:
                self.recorder.start_over(self.conversation.system)
            note("A new conversation.")
        elif word == "/system":
            self.conversation.system = rest
            if self.recorder is not None:
                self.recorder.set_system(rest)
            note("The system prompt is set." if rest else "There is no system prompt now.")
        elif word == "/think" and rest in ("on", "off", "auto"):
            think = {"on": True, "off": False, "auto": None}[rest]
            self.options = replace(self.options, request=replace(self.options.request, think=think))
            note(f"Reasoning: {rest}.")
        elif word == "/retry" and turns:
            self._retry()
        elif word == "/stats" and turns and turns[-1].reply.stats is not None:
            note(stats_line(turns[-1].reply.stats, full=True))
        elif word in ("/retry", "/stats"):
            note("There is no answer yet.")
        else:
            note(f"{line} is not understood; /help lists the words.")


def _unseen(_reply: Reply) -> None:
    """Take no note of a reply: it is not saved."""


def _input(sign: str) -> str:
    """Read a line from the terminal; the sign never gets among the answers on stdout."""
    if is_terminal(sys.stdout):
        return input(sign)
    if is_terminal(sys.stderr):
        sys.stderr.write(sign)
        sys.stderr.flush()
    return input()
