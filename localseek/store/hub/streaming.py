"""The bytes of a repository's file, from any byte on, as they come.

Takes a repository at a commit, gives a function that opens one of its files. A hub redirects to
where its large files lie: the token goes to the hub only, its client leaves it out elsewhere.
"""

import contextlib
import re
from collections.abc import Iterator

from huggingface_hub import constants, get_session, hf_hub_url
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, but not in a list
    build_hf_headers,
)

from localseek.errors import LocalseekError
from localseek.store.hub.explaining import explained, passing, raise_refusal
from localseek.store.pulling.remote import OpenStream, RemoteFile, TransientError


def opener(repository: str, commit: str) -> OpenStream:
    """Give the function that opens files of a repository at a commit."""

    @contextlib.contextmanager
    def open_stream(
        file: RemoteFile, start: int, end: int
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Open some of a file; raises TransientError or LocalseekError."""
        url = hf_hub_url(repository, file.name, revision=commit, endpoint=constants.ENDPOINT)
        # Compressed bytes could not be counted; so many seconds of silence end the connection.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if start or end < file.size_bytes:
            headers["Range"] = f"bytes={start}-{end - 1}"
        with contextlib.ExitStack() as stack:
            try:
                response = stack.enter_context(
                    get_session().stream(
                        "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
                    )
                )
                raise_refusal(response)
                first = _first(response.status_code, response.headers.get("Content-Range"), start)
            except Exception as error:
                raise _sorted(repository, error) from error
            yield first, _chunks(repository, response.iter_raw())

    return open_stream


def _chunks(repository: str, raw: Iterator[bytes]) -> Iterator[bytes]:
    while True:
        try:
            chunk = next(raw, None)
        except Exception as error:
            raise _sorted(repository, error) from error
        if chunk is None:
            return
        yield chunk


def _first(status: int, content_range: str | None, start: int) -> int:
    """Give the first byte that a response holds."""
    if status != 206:
        return 0
    found = re.match(r"bytes (\d+)-", content_range or "")
    if found is None or int(found[1]) != start:
        raise TransientError(f"the server sent {content_range!r} for byte {start:,}")
    return start


def _sorted(repository: str, error: Exception) -> Exception:
    """Give what a failed request means to a download."""
    if isinstance(error, LocalseekError | TransientError):
        return error
    return passing(error) or explained(repository, error)
