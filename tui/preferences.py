"""The user's own settings.toml: theme, keys, how reasoning is shown, presets of system prompts.

Reads it into a frozen value and says in a line what in it is not understood; a file with mistakes
never keeps the app from starting. Writes only the theme, and leaves every other line as it is.
"""

import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from textual.keys import Keys

from localseek.system import paths, private
from tui.state.views import Reasoning

Animation = Literal["none", "basic", "full"]
MODIFIERS = frozenset(("ctrl", "shift", "alt", "super", "meta", "hyper"))
BASE_KEYS = frozenset(key.value.split("+")[-1] for key in Keys)
TEMPLATE = """\
# localseek's app. Every line is optional.

# theme = "localseek-light"     # Ctrl+P, Theme lists all
# enter_sends = false           # Enter then begins a new line, Ctrl+J sends
# reasoning = "open"            # or "folded"; "auto" folds it when the answer begins
# animation = "none"            # or "basic", "full"

[keys]                          # F1 lists the names
# "app.think" = "ctrl+y"

[presets]                       # system prompts; /system NAME takes one
# translator = "Translate everything into Chinese, and nothing else."
"""


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the user set; `complaint` names the first thing that was not understood."""

    theme: str = ""
    enter_sends: bool = True
    reasoning: Reasoning = "auto"
    animation: Animation | Literal[""] = ""  # "": as TEXTUAL_ANIMATIONS says
    keys: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, str] = field(default_factory=dict)
    complaint: str = ""


def settings_file() -> Path:
    """Give the file's path."""
    return paths.home() / "settings.toml"


def read(path: Path) -> Preferences:
    """Read the file; what is missing or wrong has its default."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Preferences()
    except (OSError, ValueError) as error:
        return Preferences(complaint=f"{path} cannot be read: {error}.")
    checks: dict[str, Callable[[Any], bool]] = {
        "theme": lambda value: isinstance(value, str),
        "enter_sends": lambda value: isinstance(value, bool),
        "reasoning": lambda value: value in get_args(Reasoning),
        "animation": lambda value: value in get_args(Animation),
        "keys": lambda value: isinstance(value, dict),
        "presets": _names,
    }
    good = {name: value for name, value in raw.items() if name in checks and checks[name](value)}
    wrong = next((name for name in raw if name not in good), "")
    known = "has a value that is not understood" if wrong in checks else "is not a setting"
    complaint = f"{path}: {wrong} {known}." if wrong else ""
    keys = good.get("keys", {})
    bad = [name for name, key in keys.items() if not (isinstance(key, str) and _are_keys(key))]
    if bad:
        good["keys"] = {name: key for name, key in keys.items() if name not in bad}
        complaint = complaint or f"{path}: {bad[0]} has {keys[bad[0]]!r}, which is no key."
    return Preferences(**good, complaint=complaint)


def _are_keys(text: str) -> bool:
    """Tell whether a text names keys as Textual does: ctrl+y, f5, left_square_bracket, x."""
    for key in text.split(","):
        *modifiers, base = key.strip().split("+")
        named = base in BASE_KEYS or len(base) == 1 or _is_sign(base)
        if not named or not MODIFIERS.issuperset(modifiers):
            return False
    return True


def _is_sign(name: str) -> bool:
    try:
        return bool(unicodedata.lookup(name.replace("_", " ")))
    except KeyError:
        return False


def _names(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def write_theme(path: Path, theme: str) -> None:
    """Write the theme into the file, made from a template if there is none; raises OSError.

    A file that cannot be understood is left alone.
    """
    import tomlkit  # noqa: PLC0415 — after the first picture
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415

    text = path.read_text(encoding="utf-8") if path.exists() else TEMPLATE
    try:
        document = tomlkit.parse(text)
    except TOMLKitError:
        return
    document["theme"] = theme
    private.make_folder(path.parent)
    private.write_whole(path, tomlkit.dumps(document))
