"""The slash words of `chat`: what each does to the conversation, and the list of them.

They are those of the app as far as lines of text can have them. Takes a `Chat` and a line.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from localseek.errors import LocalseekError
from localseek.store.history.export import as_json, as_markdown
from localseek.store.history.records import Message, Saved, title_of
from localseek.system.files import write_new
from localseek.terminal import clipboard
from localseek.terminal.messages import is_terminal, note, stats_line

if TYPE_CHECKING:
    from localseek.commands.chat import Chat
FOUND_CELLS = 100  # characters of a line that /find shows
AFTER = """A prompt that begins with / is sent if a space stands before it.
A line that ends with \\ goes on in the next. Ctrl-C stops an answer."""


@dataclass(frozen=True)
class Word:
    """A word with what may follow it, what it is for, and what it does."""

    argument: str
    help: str
    do: Callable[["Chat", str], None]


def do(chat: "Chat", line: str) -> None:
    """Do what a line says that begins with a slash."""
    name, _, rest = line.partition(" ")
    word, rest = WORDS.get(name), rest.strip()
    if word is None or (rest and not word.argument):
        note(f"{line} is not understood; /help lists the words.")
        return
    try:
        word.do(chat, rest)
    except LocalseekError as error:
        chat.complain(str(error))


def _help(chat: "Chat", _: str) -> None:
    listed = {f"{name} {word.argument}".strip(): word.help for name, word in WORDS.items()}
    listed["/quit"] = "leave; Ctrl-D too"
    width = max(map(len, listed)) + 2
    note("\n".join(f"{name.ljust(width)}{text}" for name, text in listed.items()) + "\n" + AFTER)


def _new(chat: "Chat", _: str) -> None:
    chat.conversation.turns.clear()
    if chat.recorder is not None:
        chat.recorder.start_over(chat.conversation.system)
    note("A new conversation.")


def _system(chat: "Chat", text: str) -> None:
    chat.conversation.system = text
    if chat.recorder is not None:
        chat.recorder.set_system(text)
    note("The system prompt is set." if text else "There is no system prompt now.")


def _think(chat: "Chat", choice: str) -> None:
    if choice not in ("on", "off", "auto"):
        note("/think takes on, off or auto.")
        return
    think = {"on": True, "off": False, "auto": None}[choice]
    chat.options = replace(chat.options, request=replace(chat.options.request, think=think))
    note(f"Reasoning: {choice}.")


def _model(chat: "Chat", name: str) -> None:
    if not name:
        note(f"{chat.options.model} answers. /model NAME switches; localseek models list.")
        return
    chat.switch(name)
    note(f"{chat.session.name} answers from now on.")


def _retry(chat: "Chat", _: str) -> None:
    if _has_turns(chat):
        chat.answer_last("again")


def _continue(chat: "Chat", _: str) -> None:
    if not _has_turns(chat):
        return
    reply = chat.conversation.turns[-1].reply
    cut = reply.finish_reason not in ("stop", "")
    if not cut or not (reply.answer or reply.reasoning):
        note("The last answer was not cut off.")
        return
    chat.answer_last("on", begun=reply)


def _edit(chat: "Chat", text: str) -> None:
    if not _has_turns(chat):
        return
    if text:
        chat.answer_last("instead", text)
    elif chat.terminal and "readline" in sys.modules:
        last = chat.conversation.turns[-1].prompt
        if "\n" in last:
            note("The last prompt has several lines: /edit TEXT puts TEXT in its place.")
        else:
            chat.to_edit = last
    else:
        note("/edit TEXT puts TEXT in place of the last prompt.")


def _copy(chat: "Chat", _: str) -> None:
    answers = [turn.reply.answer for turn in chat.conversation.turns if turn.reply.answer]
    if not answers:
        note("There is no answer yet.")
        return
    with_program = clipboard.copy(answers[-1])
    if is_terminal(sys.stderr):
        sys.stderr.write(clipboard.sequence(answers[-1]))
        sys.stderr.flush()
    elif not with_program:
        note("Nothing here can take it: no terminal, no program for a clipboard.")
        return
    note("Answer copied.")


def _export(chat: "Chat", name: str) -> None:
    if not name:
        note("Name a file: /export FILE")
    elif _has_turns(chat):
        path = Path(name)
        saved, messages = _records(chat)
        as_text = as_json if path.suffix == ".json" else as_markdown
        note(f"Written: {write_new(path, as_text(saved, messages))}.")


def _records(chat: "Chat") -> tuple[Saved, list[Message]]:
    """Give the conversation as the history would."""
    turns, now = chat.conversation.turns, time.time()
    messages: list[Message] = []
    for turn in turns:
        number = len(messages)
        reply = turn.reply
        messages.append(Message(number + 1, number or None, "user", turn.prompt))
        messages.append(
            Message(number + 2, number + 1, "assistant", reply.answer, reply.reasoning,
                    chat.options.model, reply.finish_reason, reply.error, reply.stats)
        )  # fmt: skip
    title = chat.title or title_of(turns[0].prompt)
    saved = Saved(0, title, chat.conversation.system, chat.options.model, now, now, False, False,
                  len(messages), len(messages))  # fmt: skip
    return saved, messages


def _find(chat: "Chat", text: str) -> None:
    wanted, found = text.casefold(), 0
    for number, turn in enumerate(chat.conversation.turns, 1):
        for who, said in (("you", turn.prompt), ("answer", turn.reply.answer)):
            for line in said.splitlines():
                if wanted and wanted in line.casefold():
                    found += 1
                    note(f"{number} {who}: {line.strip()[:FOUND_CELLS]}")
    if not found:
        note(f"Nothing here holds {text!r}." if text else "/find TEXT")


def _stats(chat: "Chat", _: str) -> None:
    stats = chat.conversation.turns[-1].reply.stats if chat.conversation.turns else None
    note("There is no answer yet." if stats is None else stats_line(stats, full=True))


def _has_turns(chat: "Chat") -> bool:
    if not chat.conversation.turns:
        note("There is no answer yet.")
    return bool(chat.conversation.turns)


WORDS = {
    "/help": Word("", "this list", _help),
    "/new": Word("", "start a new conversation", _new),
    "/system": Word("TEXT", "set the system prompt; without TEXT: none", _system),
    "/think": Word("on|off|auto", "let the model reason first, or not, or as it does by itself",
                   _think),
    "/model": Word("NAME", "let another model answer from now on", _model),
    "/retry": Word("", "answer the last prompt again", _retry),
    "/continue": Word("", "let an answer that was cut off go on", _continue),
    "/edit": Word("TEXT", "change the last prompt; TEXT, or the line to be changed", _edit),
    "/copy": Word("", "copy the last answer", _copy),
    "/export": Word("FILE", "write the conversation to a new file: Markdown, or .json", _export),
    "/find": Word("TEXT", "show the lines that hold a text", _find),
    "/stats": Word("", "counts and speeds of the last answer", _stats),
}  # fmt: skip
