"""Opens the history where it is encrypted: a passphrase from a file, the keyring, the terminal.

LOCALSEEK_PASSPHRASE_FILE names a file or an open descriptor (/dev/fd/3); a passphrase is never a
word of the command line nor of the environment. Takes a vault, gives it unlocked. Knows nothing
about databases.
"""

import contextlib
import getpass
import os
import stat
from dataclasses import replace
from pathlib import Path

from localseek.errors import LocalseekError, UsageError
from localseek.options import GenerationOptions
from localseek.store.history.database import HistoryError, LockedError, WrongPassphraseError
from localseek.store.history.history import History
from localseek.store.history.vault import Vault
from localseek.system import environment, keyrings, paths
from localseek.terminal.messages import note

TRIES = 3
LONGEST = 4096  # bytes of a file with a passphrase
ENTRY = "keyring"  # the file beside the history that names its entry in the keyring


def open_history() -> History:
    """Open the history, asking for its passphrase if need be; raises HistoryError."""
    vault = Vault()
    unlock(vault)
    return vault.open()


def unlock(vault: Vault) -> None:
    """Unlock a vault by whatever there is; raises HistoryError, UsageError."""
    if not vault.locked or unlock_unasked(vault):
        return
    question = f"Passphrase of the history {paths.short(vault.path)}: "
    for left in range(TRIES, 0, -1):
        passphrase = ask(question)
        if not passphrase:
            break
        try:
            vault.unlock(passphrase)
            return
        except WrongPassphraseError:
            if left == 1:
                raise
            note("The passphrase is wrong.")
    raise LockedError("The history stays locked: no passphrase was given.")


def unlock_unasked(vault: Vault) -> bool:
    """Unlock a vault if a file or the keyring has its passphrase; tell whether it did.

    Raises UsageError, HistoryError for a file that cannot be meant, or has another passphrase.
    """
    vault.need_library()
    if environment.passphrase_file():
        vault.unlock(passphrase_in(environment.passphrase_file()))
        return True
    if not entry_file(vault).exists():
        return False
    try:
        kept = keyrings.fetch(entry_file(vault).read_text(encoding="ascii").strip())
        if kept is None:
            note("The system's keyring has no passphrase of the history any more.")
            return False
        vault.unlock(kept)
    except WrongPassphraseError:
        note("The passphrase in the system's keyring is another one.")
    except HistoryError:
        raise
    except (LocalseekError, OSError, ValueError) as error:
        note(str(error))
    return not vault.locked


def with_key(options: GenerationOptions, vault: Vault | None = None) -> GenerationOptions:
    """Give options with the key of the saved sequences, if a prompt cache wants one.

    A history that cannot be unlocked costs the cache alone, and a note says so.
    """
    load = options.load
    if not load.prompt_cache or load.sequence_key:
        return options
    vault = vault or Vault()
    try:
        unlock(vault)
    except HistoryError as error:
        note(f"{error} The prompt cache is not used.")
        return replace(options, load=replace(load, prompt_cache=False))
    return replace(options, load=replace(load, sequence_key=vault.sequence_key()))


def entry_file(vault: Vault) -> Path:
    """Give the file that names the vault's entry in the keyring."""
    return vault.path.with_name(ENTRY)


def passphrase_in(name: str) -> str:
    """Read a passphrase: what a file holds without its last line break; raises UsageError."""
    try:
        with open(name, "rb") as file:
            facts = os.fstat(file.fileno())
            if stat.S_ISREG(facts.st_mode) and facts.st_mode & 0o077:
                raise UsageError(f"Others can read {name}.", f"chmod 600 {name}")
            content = file.read(LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"The passphrase file {name} cannot be read: {reason}.") from error
    with contextlib.suppress(UnicodeDecodeError):
        passphrase = content.decode().removesuffix("\n").removesuffix("\r")
        if passphrase and len(content) <= LONGEST:
            return passphrase
    raise UsageError(f"{name} holds no passphrase.", "It is a line of text.")


def has_terminal() -> bool:
    """Tell whether somebody can be asked, wherever the standard streams lead."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def ask(question: str) -> str:
    """Ask for a passphrase on the terminal, without echo; "" if none is given.

    Raises LockedError without a terminal.
    """
    if not has_terminal():
        raise LockedError(
            "The history is encrypted, and there is no terminal to ask for its passphrase.",
            "LOCALSEEK_PASSPHRASE_FILE names a file that holds it.",
        )
    try:
        return getpass.getpass(question)
    except EOFError:
        return ""
