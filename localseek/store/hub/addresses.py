"""A repository's page on the hub, as people copy it from a browser → its name and revision.

Takes what stands on the command line, gives a `Named`. Asks nobody.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants

from localseek.errors import UsageError
from localseek.store.hub.explaining import HUB

HOSTS = (HUB, f"www.{HUB}", "hf.co")
SCHEME = re.compile(r"https?://", re.IGNORECASE)
PLAIN = "Write OWNER/NAME, or the address of its page."


@dataclass(frozen=True, slots=True)
class Named:
    """A repository as a command names it."""

    repository: str  # owner/name
    revision: str = ""  # "" where none is said
    type: str = ""  # after a colon, as in OWNER/NAME:Q4_K_M


def named(text: str) -> Named:
    """Read OWNER/NAME, OWNER/NAME:TYPE or a page's address; raises UsageError."""
    scheme = SCHEME.match(text)
    host, _, rest = text[scheme.end() if scheme else 0 :].partition("/")
    if scheme or (host.lower() in HOSTS and rest.strip("/")):
        if host.lower() not in (*HOSTS, urlsplit(constants.ENDPOINT).netloc.lower()):
            raise UsageError(f"{text} is not an address of the hub.", PLAIN)
        return _of_page(text, re.split(r"[?#]", rest)[0])
    name, colon, type_name = text.partition(":")
    if colon and not type_name:
        raise UsageError(f"{text}: no type follows the colon.", PLAIN)
    return Named(name.rstrip("/"), "", type_name)


def _of_page(address: str, path: str) -> Named:
    """Read what follows the host."""
    path, _, type_name = path.partition(":")
    words = [unquote(word) for word in path.strip("/").split("/")]
    if words[0] == "models" and len(words) > 2:
        words = words[1:]
    if words[0] in ("datasets", "spaces", "collections", "papers", "docs") or not words[0]:
        raise UsageError(f"{address} is not the page of a model.", PLAIN)
    name, kind, revision, inside = "/".join(words[:2]), words[2:3], words[3:4], words[4:]
    if kind in (["blob"], ["resolve"]) or inside:
        file = "/".join(inside) or "PATTERN"
        raise UsageError(
            f"{address} is the page of a file or a folder.",
            f"Write {name} --file '{file}{'/*' if kind == ['tree'] and inside else ''}'.",
        )
    if kind and (kind != ["tree"] or not revision):
        raise UsageError(f"{address} is not the page of a model.", f"Write {name}.")
    return Named(name, revision[0] if revision else "", type_name)
