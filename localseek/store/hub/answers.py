"""The hub's answers about a repository, read up to a limit and checked before anything uses them.

Takes addresses of the hub's API, gives the values of a listing; what is not shaped as a hub's
answer is an error that says so. The library's own calls read an answer whatever its length, and
take its fields on trust.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from huggingface_hub import constants, get_session
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, but not in a list
    build_hf_headers,
)

from localseek.store.hub.explaining import no_hub, raise_refusal
from localseek.store.pulling.remote import RemoteFile, brief

MOST_BYTES = 64 << 20  # of a listing; one of 100,000 large files has some 35 MB
MOST_SIZE = 1 << 53  # bytes of a file: JSON's numbers are exact up to here
MOST_TEXT = 200  # characters of a licence's name or link that are worth showing
COMMIT = re.compile(r"[0-9A-Za-z._-]{1,100}")
SHA256 = re.compile(r"[0-9a-f]{64}")


def described(repository: str, revision: str) -> dict[str, Any]:
    """Ask for what a repository is; raises LocalseekError, or what the library raises."""
    path = f"{_api(repository)}/revision/{quote(revision, safe='')}?blobs=true"
    found, _ = _asked(path, MOST_BYTES)
    if not isinstance(found, dict):
        raise no_hub("it describes no repository")
    return found


def tree(repository: str, commit: str) -> list[object]:
    """Ask for all entries of a repository, page by page; raises as `described` does."""
    page = f"{_api(repository)}/tree/{quote(commit, safe='')}?recursive=true"
    found: list[object] = []
    left = MOST_BYTES
    while page:
        if not page.startswith(f"{constants.ENDPOINT}/"):  # a token must not go elsewhere
            raise no_hub("its listing goes on at another address")
        entries, (page, count) = _asked(page, left)
        if not isinstance(entries, list):
            raise no_hub("it lists no files")
        found += entries
        left -= max(1, count)
    return found


def _api(repository: str) -> str:
    return f"{constants.ENDPOINT}/api/models/{repository}"


def _asked(url: str, most_bytes: int) -> tuple[Any, tuple[str, int]]:
    """Give an answer, where it goes on ("" if nowhere), and its bytes."""
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    # Unpacked bytes are counted: a small packed answer may hold any number of them.
    with get_session().stream("GET", url, headers=build_hf_headers(), timeout=timeout) as response:
        raise_refusal(response)
        text = _bounded(response.iter_bytes(), most_bytes)
        following = str(response.links.get("next", {}).get("url") or "")
    try:
        return json.loads(text), (following, len(text))
    except (ValueError, RecursionError) as error:
        raise no_hub("it is not JSON") from error


def _bounded(chunks: Iterator[bytes], most_bytes: int) -> bytes:
    found = bytearray()
    for chunk in chunks:
        found += chunk
        if len(found) > most_bytes:
            raise no_hub(f"it is longer than {MOST_BYTES >> 20} MiB")
    return bytes(found)


def commit_of(described: dict[str, Any]) -> str:
    """Give the commit that a description is of."""
    commit = described.get("sha")
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise no_hub("it names no commit")
    return commit


def entry(found: object, name_key: str, blob_key: str) -> RemoteFile | None:
    """Give a file of a listing; None where its size is left out."""
    if not isinstance(found, dict) or not isinstance(found.get(name_key), str):
        raise no_hub("it lists a file without a name")
    name, size, lfs = found[name_key], found.get("size"), found.get("lfs") or {}
    if size is None:
        return None
    if type(size) is not int or not 0 <= size < MOST_SIZE:
        raise no_hub(f"the size of {brief(name)} is not a number of bytes")
    if not isinstance(lfs, dict):
        raise no_hub(f"what it says of {brief(name)} is not readable")
    sha256 = lfs.get("sha256") or lfs.get("oid") or ""
    blob_id = found.get(blob_key) or ""
    hashes = isinstance(sha256, str) and isinstance(blob_id, str)
    if not hashes or not (sha256 == "" or SHA256.fullmatch(sha256)):
        raise no_hub(f"the checksum of {brief(name)} is none")
    return RemoteFile(name, size, sha256, blob_id)


def licence_of(described: dict[str, Any], repository: str) -> tuple[str, str]:
    """Give a licence's name, and a link if it is one of the repository's own."""
    card = described.get("cardData")
    card = card if isinstance(card, dict) else {}
    names = card.get("license")
    name = ", ".join(map(_printable, names)) if isinstance(names, list) else _printable(names)
    own, link = _printable(card.get("license_name")), _printable(card.get("license_link"))
    if link and "://" not in link:
        link = f"{constants.ENDPOINT}/{repository}/blob/{commit_of(described)}/{link.lstrip('./')}"
    return (own if own and name in ("", "other") else name)[:MOST_TEXT], link


def _printable(text: object) -> str:
    """Give a card's words on one line, without what could drive a terminal."""
    words = " ".join(text.split()) if isinstance(text, str) else ""
    return "".join(one if one.isprintable() else "\ufffd" for one in words)[:MOST_TEXT]
