"""Names that people can remember: `deepseek-r1-distill-qwen-7b:q4_k_m`.

Takes a file's name and what the file says of itself, gives a base and a tag, the tag being the
type. A name is lower case and safe in a shell, and depends on its own file only, so that it stays
the same whatever else comes and goes; what tells two files of one name apart is added by the
catalogue. Knows nothing about folders.
"""

import hashlib
import re
import unicodedata
from pathlib import Path

from localseek.gguf.info import SPLIT_NAME

# The type at the end of a file name, as publishers write it: Q4_K_M, UD-Q4_K_XL, i1-IQ2_XXS.
TYPE = re.compile(
    r"(?:^|[-._ ])((?:(?:ud|i1)-)?(?:ds_q\d|iq\d_(?:xxs|xs|s|m|nl|k\w*)"
    r"|t?q\d_(?:k(?:_(?:xl|[sml]))?|[01])|mxfp4(?:_moe)?|nvfp4|fp?16|fp?32|bf16))$",
    re.IGNORECASE,
)
SAYS_NOTHING = re.compile(
    r"(?:ggml[-_])?(?:model|weights|gguf|main)?|sha256-[0-9a-f]+|[0-9a-f]{40,}"
)
REPOSITORY = re.compile(r"^.+?-gguf_", re.IGNORECASE)  # with which llama.cpp's downloads begin
UNSAFE = re.compile(r"[^\w.+]+")
TAG_LIMIT = 40  # characters


def short_name(path: Path, title: str, type_name: str) -> tuple[str, str]:
    """Give the base and the tag of a model: its file's name, or its own where that says nothing.

    `title` and `type_name` are what the file says of itself, "" where it was not read.
    """
    split = SPLIT_NAME.match(path.name)
    stem = split["stem"] if split else path.name.removesuffix(".gguf")
    stem = REPOSITORY.sub("", stem)
    found = TYPE.search(stem)
    base = stem[: found.start()] if found else stem
    tag = found[1] if found else type_name if type_name != "?" else ""
    if SAYS_NOTHING.fullmatch(base.lower()) and title:
        base = title
        own = TYPE.search(title)
        if own:
            base, tag = title[: own.start()], tag or own[1]
    return safe(base) or "model", safe(tag)[:TAG_LIMIT]


def safe(text: str) -> str:
    """Give text in lower case, in which nothing means anything to a shell or to a name."""
    plain = unicodedata.normalize("NFC", text).lower()
    plain = plain.encode("utf-8", "replace").decode()  # names of files may be no text
    return UNSAFE.sub("-", plain).strip("-.+_")


def joined(base: str, tag: str) -> str:
    """Give a name with its tag, if it has one."""
    return f"{base}:{tag}" if tag else base


def digits(path: Path) -> str:
    """Give six digits that are a place's own, for files that nothing else tells apart."""
    return hashlib.sha256(bytes(path)).hexdigest()[:6]
