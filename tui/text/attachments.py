"""What stands in a prompt for something longer: `@path` for a text file, a chip for a paste.

Gives completions while one types, and the whole text when the prompt is sent. Sizes are told in
tokens, about four bytes each. Knows nothing about Textual.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from localseek.errors import UsageError
from tui.state.wording import count

BYTES_A_TOKEN = 4  # about, of English text and code; Chinese has about three
LONGEST_FILE = 4_000_000  # bytes; a million tokens, more than any context holds
LONGEST_PASTE = 2_000  # characters that are shown as they are
OFFERED = 8  # completions at once
_PATH = re.compile(r"(?:^|(?<=\s))@(\S+)")
_BLOCK = re.compile(r"\n\n(\S+):\n`{3,}\n")  # where `_attached` has put a file
_TYPED = re.compile(r"(?:^|(?<=\s))@(\S*)$")
_WORD = re.compile(r"/([a-z]*)$")


@dataclass(frozen=True, slots=True)
class Completion:
    """What can stand for the last `typed` characters before the cursor, and a remark on it."""

    text: str
    typed: int
    remark: str = ""


def tokens_of(size_bytes: int) -> str:
    """Say about how many tokens a text of so many bytes has."""
    return f"≈ {count(max(1, size_bytes // BYTES_A_TOKEN))} tokens"


def completions(before: str, words: Mapping[str, str], folder: Path) -> list[Completion]:
    """Give what the text before the cursor can be completed to.

    `words` are the slash words with their help; paths are seen from `folder`.
    """
    if match := _WORD.fullmatch(before):
        fitting = [word for word in words if word.startswith(match[1])]
        return [
            Completion(f"/{word}", len(before), words[word])
            for word in fitting[:OFFERED]
            if word != match[1]
        ]
    if match := _TYPED.search(before.rpartition("\n")[2]):
        return _paths(match[1], folder)
    return []


def _paths(typed: str, folder: Path) -> list[Completion]:
    inside, slash, beginning = typed.rpartition("/")
    base = resolved(folder, inside + slash) if slash else folder
    if base is None:
        return []
    try:
        entries = sorted(base.iterdir(), key=lambda one: (one.name.casefold(), one.name))
    except OSError:
        return []
    found = []
    for entry in entries:
        hidden = entry.name.startswith(".") and not beginning.startswith(".")
        if hidden or not entry.name.casefold().startswith(beginning.casefold()):
            continue
        try:
            remark = "" if entry.is_dir() else tokens_of(entry.stat().st_size)
        except OSError:
            continue
        if " " in entry.name:
            continue  # it could not be told where its name ends
        text = f"@{inside}{slash}{entry.name}{'/' if entry.is_dir() else ''}"
        if text != f"@{typed}":
            found.append(Completion(text, len(typed) + 1, remark))
        if len(found) == OFFERED:
            break
    return found


def chip(number: int, text: str) -> str:
    """Give what stands in the prompt for a long paste."""
    lines = text.count("\n") + 1
    return f"[pasted text {number}: {count(lines)} line{'' if lines == 1 else 's'}, " + (
        f"{tokens_of(len(text.encode('utf-8', 'replace')))}]"
    )


def expanded(text: str, pastes: Mapping[str, str], folder: Path) -> str:
    """Give the whole prompt: pastes where their chips are, files at its end.

    Only what was typed names files: neither a paste does, nor a file that is in the text already,
    as in a prompt that comes back to be edited. Raises UsageError for a file that cannot be
    attached. `@` before what is no file stays.
    """
    files = list(_files(text, folder))
    for short, long in pastes.items():
        text = text.replace(short, long)
    return text + "".join(_attached(name, path) for name, path in files)


def attached(text: str, folder: Path) -> list[tuple[str, int]]:
    """Give the files that a prompt names, with their sizes in bytes."""
    found = []
    for name, path in _files(text, folder):
        with contextlib.suppress(OSError):  # it has just gone
            found.append((name, path.stat().st_size))
    return found


def _files(text: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Give the files that the typed part of a text names, without those that are in it."""
    blocks = list(_BLOCK.finditer(text))
    typed = text[: blocks[0].start()] if blocks else text
    inside = {match[1] for match in blocks}
    for match in _PATH.finditer(typed):
        name = match[1].rstrip(",;:.!?)")
        if name not in inside and (path := _file(folder, name)):
            inside.add(name)
            yield name, path


def resolved(folder: Path, name: str) -> Path | None:
    """Give the path that a name means, seen from a folder; None for what cannot be one."""
    try:
        return folder / Path(name).expanduser()
    except (OSError, ValueError, RuntimeError):  # such as the home of nobody
        return None


def here() -> Path:
    """Give the folder that the user stands in, also when it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return Path("/")


def _file(folder: Path, name: str) -> Path | None:
    path = resolved(folder, name)
    try:
        return path if path is not None and path.is_file() else None
    except (OSError, ValueError):
        return None


def _attached(name: str, path: Path) -> str:
    try:
        size = path.stat().st_size
        if not size:  # also what the system makes up when it is read, perhaps without end
            raise UsageError(f"{name} is empty.")
        if size > LONGEST_FILE:
            raise UsageError(f"{name} is too long to attach: {tokens_of(size)}.")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}.") from error
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name} is not UTF-8 text.", "These models read text only: no images, no archives."
        ) from error
    if "\0" in content:
        raise UsageError(f"{name} is not text.", "These models read text only.")
    fence = "```"
    while fence in content:
        fence += "`"
    end = "" if content.endswith("\n") else "\n"
    return f"\n\n{name}:\n{fence}\n{content}{end}{fence}"
