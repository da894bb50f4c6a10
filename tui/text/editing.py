"""The prompt in the user's own editor: a private file, their command, and what they left in it.

The file lies in memory where the system has a folder for that.
"""

import shlex
import subprocess
import tempfile
from pathlib import Path

from localseek.errors import UsageError
from localseek.system import environment, paths


def edit(text: str) -> str:
    """Give the text as the user left it; raises UsageError without an editor that works."""
    try:
        command = shlex.split(environment.editor())
    except ValueError as error:
        raise UsageError(f"VISUAL or EDITOR is not a command: {error}.") from error
    if not command:
        raise UsageError("No editor is named.", "Set VISUAL or EDITOR, such as EDITOR=nano.")
    with tempfile.TemporaryDirectory(prefix="localseek-", dir=paths.in_memory()) as folder:
        file = Path(folder, "prompt.md")
        file.write_text(text, encoding="utf-8", errors="replace")
        try:
            status = subprocess.run([*command, str(file)], check=False).returncode
        except OSError as error:
            raise UsageError(
                f"{command[0]} cannot be started: {error.strerror}.", "Set VISUAL or EDITOR."
            ) from error
        if status != 0:
            raise UsageError(
                f"{command[0]} ended with status {status}.", "The prompt is as it was."
            )
        try:
            return file.read_text(encoding="utf-8", errors="replace").removesuffix("\n")
        except OSError as error:
            what = f"{command[0]} left no file: {error.strerror}."
            raise UsageError(what, "The prompt is as it was.") from error
