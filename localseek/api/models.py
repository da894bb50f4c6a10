"""From the name of a model to a file that is safe to load, and the template that it lacks.

Hands library.py the one thing it must not import: the converter of the embedded checkpoint.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from localseek.errors import ModelError
from localseek.gguf import head
from localseek.gguf.info import read_info
from localseek.gguf.runnable import check_runnable
from localseek.options import GenerationOptions
from localseek.store import library
from localseek.terminal.messages import note


def find_model(name: str, say: Callable[[str], None] = note) -> Path:
    """Give the file that `name` means; the embedded model is made on first use, and `say` told."""
    if Path(name, "snapshots").expanduser().is_dir():
        name = str(_snapshot(Path(name).expanduser()))
    return library.resolve(name, library.Preparation(_convert, _converter_version(), say))


def find_runnable_model(name: str, say: Callable[[str], None] = note) -> Path:
    """Give the file that `name` means, checked: nothing native sees an unchecked one."""
    path = find_model(name, say)
    check_runnable(read_info(path))
    return path


def completed(options: GenerationOptions, path: Path) -> tuple[GenerationOptions, str]:
    """Give the options with a chat template if the file lacks one that we know, and a notice."""
    if options.load.chat_template:
        return options, ""
    info = read_info(path)
    if info.chat_template:
        return options, ""
    from converters import known_template

    template = known_template(info.architecture, info.name)
    if not template:
        return options, ""
    notice = (
        f"The file has no chat template; localseek's own for {info.architecture} is used. "
        "--chat-template names another."
    )
    return replace(options, load=replace(options.load, chat_template=template)), notice


def _snapshot(cache: Path) -> Path:
    """Give the newest snapshot of a Hub cache folder."""
    from converters import ConvertError, followed

    try:
        return followed(cache)
    except ConvertError as error:
        raise ModelError(f"{error}.") from error


def _convert(source: Path, target: Path) -> None:
    from converters import ConvertError, ConvertOptions, convert

    try:
        convert(source, target, ConvertOptions(type="Q8_0", name="nano", force=True))
    except ConvertError as error:
        raise ModelError(f"The embedded model cannot be prepared: {error}.") from error


def _converter_version() -> str:
    """Give a text that changes when the converter's code does."""
    digest = hashlib.sha256()
    package = find_spec("converters")
    assert package is not None and package.submodule_search_locations  # it is installed with us
    folder = Path(package.submodule_search_locations[0])
    for file in (Path(head.__file__), *sorted(folder.rglob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()
