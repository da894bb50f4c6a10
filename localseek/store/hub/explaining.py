"""Errors of the hub's library → one line with a remedy, or a failure that may pass.

Takes whatever it raised. The library's HTTP client is another in nearly every major version, so
its own errors are told apart by their status, and all others are failed connections.
"""

from typing import Any

from huggingface_hub import constants, errors, get_token
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, but not in a list
    hf_raise_for_status,
)

from localseek.errors import LocalseekError, UsageError
from localseek.store.pulling.remote import TransientError

HUB = "huggingface.co"  # where HF_ENDPOINT does not say another
MOST_REFUSAL_BYTES = 1 << 16  # of what a server says beside an error's status
PASSING = (408, 425, 429, 500, 502, 503, 504, 520, 522, 524)  # HTTP statuses


def explained(repository: str, error: Exception) -> LocalseekError:
    """Put an error into one line with a remedy."""
    named = _named(repository, error)
    if named is not None:
        return named
    status, asked = _status(error)
    if status == 429:
        when = f"in {asked:.0f} s" if asked else "in a few minutes"
        return LocalseekError(
            f"{constants.ENDPOINT} wants fewer requests (HTTP 429).",
            f"Try again {when}; those who log in (hf auth login) may ask more often.",
        )
    if status == 401:
        return _not_let_in(repository)
    if status:
        return LocalseekError(
            f"{constants.ENDPOINT} answered {_first_line(error)}.",
            "Try again later; the same command goes on where it stopped.",
        )
    return LocalseekError(
        f"{repository} could not be downloaded: {_first_line(error)}.",
        "Check the connection; the same command goes on where it stopped.",
    )


def no_hub(why: str) -> LocalseekError:
    """Put into one line that an answer is not one of a hub."""
    hint = "Try again later."
    if f"https://{HUB}" != constants.ENDPOINT:
        hint = "Check HF_ENDPOINT; unset it to ask the hub itself."
    return LocalseekError(f"What {constants.ENDPOINT} answers is not a hub's answer: {why}.", hint)


def raise_refusal(response: Any) -> None:
    """Raise the library's error for a status that is one; `response` is not read yet."""
    if response.status_code < 400:
        return
    said = bytearray()
    for chunk in response.iter_raw():  # the library would read all that comes
        said += chunk
        if len(said) >= MOST_REFUSAL_BYTES or "content-encoding" in response.headers:
            break
    headers = {
        name: value for name, value in response.headers.items()
        if name.lower() not in ("content-length", "content-encoding", "transfer-encoding")
    }  # fmt: skip
    text = b"" if "content-encoding" in response.headers else bytes(said[:MOST_REFUSAL_BYTES])
    hf_raise_for_status(
        type(response)(
            response.status_code, headers=headers, content=text, request=response.request
        )
    )


def passing(error: Exception) -> TransientError | None:
    """Give a failure that may pass by itself, None for one that will not."""
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return None
    status, asked = _status(error)
    if status in PASSING:
        return TransientError(f"HTTP {status} from the hub", asked)
    if status or isinstance(error, errors.HfHubHTTPError | ValueError | TypeError):
        return None
    return TransientError(_first_line(error))


def _named(repository: str, error: Exception) -> LocalseekError | None:
    """Explain what the library has a class of its own for."""
    if isinstance(error, errors.HFValidationError):
        return UsageError(
            f"{repository!r} is not a repository name.",
            "It looks like: deepseek-ai/DeepSeek-V2-Lite-Chat.",
        )
    if isinstance(error, errors.GatedRepoError):
        return _gated(repository)
    if isinstance(error, errors.DisabledRepoError):
        return LocalseekError(f"{repository} was disabled by the hub.", "Look for a copy.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return _not_let_in(repository)
    if isinstance(error, errors.RevisionNotFoundError):
        return LocalseekError(
            f"{repository} has no such revision.", "Leave --revision out, or give --update."
        )
    if isinstance(error, errors.EntryNotFoundError):
        return LocalseekError(
            f"A file of {repository} is listed, but not there.", "Try again later, or --update."
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return LocalseekError("HF_HUB_OFFLINE is set.", "Unset it to download.")
    return None


def _gated(repository: str) -> LocalseekError:
    page = f"{constants.ENDPOINT}/{repository}"
    if get_token():
        return LocalseekError(
            f"{repository} is gated, and its owner has not let this account in.",
            f"Ask on {page}; once you are let in, the same command goes on.",
        )
    return LocalseekError(
        f"{repository} is gated: its owner must let you in.",
        f"Ask on {page}, then log in: hf auth login (or set HF_TOKEN).",
    )


def _not_let_in(repository: str) -> LocalseekError:
    hint = "Check the name; for a private one: hf auth login (or set HF_TOKEN)."
    if get_token():
        hint = "Check the name, and that your token may read it: hf auth whoami."
    return LocalseekError(f"There is no repository {repository}, or it is private.", hint)


def _status(error: Exception) -> tuple[int, float | None]:
    """Give the HTTP status of an error and the seconds its server asked for; 0 for no answer."""
    response = getattr(error, "response", None)
    if response is None:
        return 0, None
    asked = str(response.headers.get("Retry-After", "")).strip()
    return int(response.status_code), float(asked) if asked.isdigit() else None


def _first_line(error: Exception) -> str:
    """Give what an error says first, without what would name a token."""
    lines = (line.strip() for line in str(error).splitlines())
    return (next(filter(None, lines), "") or type(error).__name__).rstrip(".")
