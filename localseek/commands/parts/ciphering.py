"""`history encrypt` and `decrypt`: passphrases asked for, the history converted, the keyring told.

Takes parsed arguments. Knows nothing about how that is done (store/history/conversion.py).
"""

import argparse
import contextlib
import json
import secrets

from localseek.commands.parts import unlocking
from localseek.errors import LocalseekError, UsageError
from localseek.store.history import cipher
from localseek.store.history.vault import Vault
from localseek.system import environment, keyrings, paths, private
from localseek.terminal.messages import note

SHORT = 8  # characters; NIST SP 800-63B asks for no fewer
ENCRYPT_HELP = """
A terminal is asked for the passphrase before and the new one. Without a terminal,
LOCALSEEK_PASSPHRASE_FILE names a file that holds the one before (or the first), and
--new-passphrase-file one that holds the new: one line each, and only you may read them."""
DECRYPT_HELP = """
A terminal, the system's keyring or the file that LOCALSEEK_PASSPHRASE_FILE names is asked for
the passphrase."""
NEVER_AGAIN = "Without the passphrase nobody can read the history again, you included."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `encrypt`."""
    parser.add_argument(
        "--keyring", action="store_true",
        help="keep the passphrase in the system's keyring, so that nothing asks for it",
    )  # fmt: skip
    parser.add_argument(
        "--new-passphrase-file", metavar="FILE", default="",
        help="read the new passphrase from a file, or /dev/fd/N",
    )  # fmt: skip


def encrypt(arguments: argparse.Namespace) -> None:
    """Encrypt the history, or change its passphrase."""
    cipher.library()
    if arguments.keyring and not keyrings.backend():
        raise UsageError(
            "There is no system keyring here that could keep it.", "Leave --keyring out."
        )
    vault = Vault()
    before = vault.encrypted
    unlocking.unlock(vault)
    passphrase = _new_passphrase(arguments.new_passphrase_file, before)
    if len(passphrase) < SHORT:
        note(f"A passphrase of fewer than {SHORT} characters is soon guessed; this one is taken.")
    overwritten = vault.encrypt(passphrase)
    done = f"Encrypted: {paths.short(vault.path)}."
    note("The passphrase is another one now." if before else done)
    _forget(vault)
    _tell_of_recovered()
    if not overwritten:
        note("The file before has other names (hard links, as some backups make). It was not "
             f"overwritten: {'the passphrase before opens it' if before else 'it is in plain'}.")
    if arguments.keyring:
        entry = secrets.token_hex(8)
        keyrings.store(entry, passphrase)
        private.write_whole(unlocking.entry_file(vault), entry + "\n")
        note(f"{keyrings.backend()} keeps the passphrase.")
    _print_state(vault, overwritten, arguments.json)


def decrypt(arguments: argparse.Namespace) -> None:
    """Store the history without encryption again."""
    vault = Vault()
    if not vault.encrypted:
        raise UsageError(f"The history {paths.short(vault.path)} is not encrypted.")
    unlocking.unlock(vault)
    overwritten = vault.decrypt()
    _forget(vault)
    note(f"Not encrypted any more: {paths.short(vault.path)}.")
    _print_state(vault, overwritten, arguments.json)


def _print_state(vault: Vault, overwritten: bool, as_json: bool) -> None:
    if as_json:
        state = {"path": str(vault.path), "encrypted": vault.encrypted, "overwritten": overwritten}
        print(json.dumps(state, ensure_ascii=False))


def _new_passphrase(file: str, encrypted: bool) -> str:
    """Give the new passphrase: from a file, or typed twice; raises UsageError."""
    file = file or ("" if encrypted else environment.passphrase_file())
    if file:
        passphrase = unlocking.passphrase_in(file)
        if len(passphrase.splitlines()) > 1:
            raise UsageError(f"{file} holds several lines.", "A new passphrase is one line.")
        return passphrase
    if not unlocking.has_terminal():
        raise UsageError(
            "There is no terminal to ask for a new passphrase.",
            "--new-passphrase-file names a file that holds it.",
        )
    note(NEVER_AGAIN)
    first = unlocking.ask("New passphrase: ")
    if not first:
        raise UsageError("A passphrase has at least one character.", "Nothing was changed.")
    if unlocking.ask("The same once more: ") != first:
        raise UsageError("The two passphrases differ.", "Nothing was changed. Try again.")
    return first


def _tell_of_recovered() -> None:
    """Name what an app that failed has left in plain."""
    folder = paths.home() / "recovered"
    with contextlib.suppress(OSError):
        if any(folder.iterdir()):
            note(f"Not encrypted: what is in {paths.short(folder)}. Read and delete it.")


def _forget(vault: Vault) -> None:
    """Take the passphrase before out of the keyring, if it is there."""
    named = unlocking.entry_file(vault)
    with contextlib.suppress(OSError, ValueError, LocalseekError):
        entry = named.read_text(encoding="ascii").strip()
        named.unlink()
        keyrings.forget(entry)
