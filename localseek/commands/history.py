"""`localseek history`: the saved conversations: list, search, show, change, delete, encrypt.

NAME is a conversation's number or the beginning of its title. Reads and writes what `chat` and
the app save; starts no engine.
"""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from localseek.commands.parts import ciphering
from localseek.commands.parts.actions import action
from localseek.commands.parts.unlocking import open_history
from localseek.store.history import export
from localseek.store.history.history import History
from localseek.store.history.records import Saved
from localseek.store.sequences import SequenceStore
from localseek.system.files import write_new
from localseek.terminal.columns import table
from localseek.terminal.messages import clean, note, one_line, prepare_streams, width_of

EXAMPLES = """examples:
  localseek history list
  localseek history search 北京 weather
  localseek history show "Why is the sky"
  localseek history export 12 -o sky.md
  localseek history delete 12 13
  localseek history encrypt
"""
TITLE_CELLS = 50  # characters of a title in the list
STILL_THERE = (
    "Another program is reading the history: its log holds the deleted text until that has ended."
)
HITS = 50  # places that a search shows


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    actions = parser.add_subparsers(
        dest="action", metavar="list|search|show|export|rename|pin|archive|delete|encrypt|decrypt"
    )
    # fmt: off
    add = actions.add_parser
    shown = action(add, "list", "the conversations, the last used first",
        "localseek history list\nlocalseek history list --archived --json", "a JSON array")
    shown.add_argument("--archived", action="store_true", help="the archived ones instead")
    found = action(add, "search", "titles and texts that hold every word",
        "localseek history search 北京 weather", "a JSON array")
    found.add_argument("words", nargs="+", metavar="WORD", help="a word, or a part of one")
    one = action(add, "show", "a conversation, reasoning folded away",
        "localseek history show 12\nlocalseek history show --reasoning \"Why is the sky\"")
    one.add_argument("--reasoning", action="store_true", help="show the reasoning too")
    saved = action(add, "export", "a conversation as Markdown, or JSON with variants",
        "localseek history export 12 -o sky.md", "or write JSON")
    saved.add_argument("-o", "--output", metavar="FILE", type=Path,
        help="a new file (default: standard output); .json: as JSON")
    named = action(add, "rename", "give a conversation another title",
        "localseek history rename 12 Blue skies")
    pinned = action(add, "pin", "keep a conversation at the top; --off undoes it",
        "localseek history pin 12\nlocalseek history pin 12 --off")
    away = action(add, "archive", "take a conversation off the list; --off undoes it",
        "localseek history archive 12\nlocalseek history archive 12 --off")
    gone = action(add, "delete", "delete conversations for good", "localseek history delete 12 13")
    sealed = action(add, "encrypt", "encrypt all with a passphrase, or change it",
        "localseek history encrypt\nlocalseek history encrypt --new-passphrase-file new.txt",
        more=ciphering.ENCRYPT_HELP)
    ciphering.add_arguments(sealed)
    action(add, "decrypt", "store all without encryption again", "localseek history decrypt",
        more=ciphering.DECRYPT_HELP)
    for part in (one, saved, named, pinned, away):
        part.add_argument("name", metavar="NAME", help="a number, or how the title begins")
    named.add_argument("title", nargs="+", metavar="TITLE", help="the words of its new title")
    gone.add_argument("names", nargs="+", metavar="NAME", help="numbers, or how titles begin")
    for part in (pinned, away):
        part.add_argument("--off", action="store_true", help="undo it")
    # fmt: on
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    prepare_streams()
    if arguments.action == "encrypt":
        ciphering.encrypt(arguments)
        return 0
    if arguments.action == "decrypt":
        ciphering.decrypt(arguments)
        return 0
    with open_history() as history:
        if arguments.action == "search":
            _search(history, " ".join(arguments.words), arguments.json)
        elif arguments.action == "delete":
            meant = {one.id: one for one in map(history.named, arguments.names)}
            deletion = history.delete(meant)
            SequenceStore().remove_named(deletion.sequences)
            note(f"Deleted: {', '.join(one.title for one in meant.values())}.")
            if not deletion.overwritten:
                note(STILL_THERE)
            if arguments.json:
                print(json.dumps({"deleted": list(meant), "overwritten": deletion.overwritten}))
        elif arguments.action in ("show", "export"):
            _write(history, history.named(arguments.name), arguments)
        elif arguments.action in ("rename", "pin", "archive"):
            _change(history, history.named(arguments.name), arguments)
        else:
            _list(history, getattr(arguments, "archived", False), arguments.json)
    return 0


def _list(history: History, archived: bool, as_json: bool) -> None:
    listed = history.conversations(archived)
    if as_json:
        print(json.dumps([asdict(one) for one in listed], ensure_ascii=False))
    elif listed:
        rows = [("NUMBER", "TITLE", "LAST USED", "MODEL", "MESSAGES"), *map(_row, listed)]
        print("\n".join(table(rows, width_of(sys.stdout), left=4)))
    else:
        note("No conversation is archived." if archived else "No conversation is saved yet.")


def _row(one: Saved) -> tuple[str, ...]:
    title = one_line(one.title)
    if len(title) > TITLE_CELLS:
        title = title[: TITLE_CELLS - 1] + "…"
    return (
        str(one.id), f"{'* ' if one.pinned else ''}{title}", _when(one.used), one_line(one.model),
        str(one.messages),
    )  # fmt: skip


def _search(history: History, text: str, as_json: bool) -> None:
    hits = history.search(text, HITS)
    if as_json:
        print(json.dumps([asdict(hit) for hit in hits], ensure_ascii=False))
        return
    for hit in hits:
        where = f"{hit.conversation.id} {one_line(hit.conversation.title)}"
        print(where if hit.message is None else f"{where}\n    {hit.role}: {one_line(hit.excerpt)}")
    if not hits:
        note(f"Nothing in the history holds {text!r}.")


def _write(history: History, one: Saved, arguments: argparse.Namespace) -> None:
    target: Path | None = getattr(arguments, "output", None)
    as_json = arguments.json or (target is not None and target.suffix == ".json")
    if as_json:
        text = export.as_json(one, history.all_messages(one.id)) + "\n"
    elif arguments.action == "show":
        text = export.as_text(one, history.branch(one.leaf), arguments.reasoning)
    else:
        text = export.as_markdown(one, history.branch(one.leaf))
    if target is None:
        print(clean(text) if sys.stdout.isatty() else text, end="")
        return
    write_new(target, text)
    note(f"Written: {target}.")


def _change(history: History, one: Saved, arguments: argparse.Namespace) -> None:
    if arguments.action == "rename":
        history.change(one.id, title=" ".join(arguments.title))
    elif arguments.action == "pin":
        history.change(one.id, pinned=not arguments.off)
    else:
        history.change(one.id, archived=not arguments.off)
    if arguments.json:
        print(json.dumps(asdict(history.conversation(one.id)), ensure_ascii=False))


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
