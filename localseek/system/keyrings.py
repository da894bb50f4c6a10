"""The system's keyring, which keeps a passphrase while its owner is logged in. One door to keyring.

Takes and gives a passphrase under an entry's name. Knows nothing about what it opens.
"""

from typing import Any

from localseek.errors import LocalseekError

SERVICE = "localseek"


def backend() -> str:
    """Give the name of the system's keyring, "" if there is none."""
    try:
        import keyring  # noqa: PLC0415 — it looks for all backends there are
    except ImportError:
        return ""
    found = keyring.get_keyring()
    return str(found.name) if found.priority > 0 else ""


def store(entry: str, passphrase: str) -> None:
    """Keep a passphrase; raises LocalseekError."""
    _do("set_password", entry, passphrase)


def fetch(entry: str) -> str | None:
    """Give a passphrase, None if there is none; raises LocalseekError."""
    found = _do("get_password", entry)
    return None if found is None else str(found)


def forget(entry: str) -> None:
    """Remove a passphrase; raises LocalseekError."""
    _do("delete_password", entry)


def _do(verb: str, entry: str, *words: str) -> Any:
    try:
        import keyring  # noqa: PLC0415

        return getattr(keyring, verb)(SERVICE, entry, *words)
    except ImportError as error:
        raise LocalseekError("The system's keyring cannot be used: keyring is missing.") from error
    except Exception as error:  # every backend has errors of its own
        why = str(error) or type(error).__name__
        raise LocalseekError(f"The system's keyring cannot be used: {why}.") from error
