"""The library's own files and the names that their places give them.

Takes nothing but the folder of the library, gives paths. Knows nothing about what is in a file.
"""

import re
from pathlib import Path

from localseek.gguf.info import is_later_part
from localseek.store.models.walking import files_below
from localseek.system import paths

EMBEDDED = "nano"
EMBEDDED_FILE = re.compile(r"nano-Q8_0-[0-9a-f]{12}\.gguf")  # 12 digits: library._fingerprint


def model_files() -> list[Path]:
    """List the library's GGUF files: the first part of each split model, no unfinished files."""
    found = files_below(paths.models(), ".gguf")
    return [path for path in found if not is_later_part(path)]


def library_name(path: Path) -> str:
    """Give the name that the place of a file in the library gives it; nano is the embedded one."""
    inside = path.relative_to(paths.models())
    if EMBEDDED_FILE.fullmatch(str(inside)):
        return EMBEDDED
    name = inside.with_suffix("").as_posix()
    return inside.name if name == EMBEDDED else name
