"""The history's file and what opens it: nothing, or a passphrase that was given once.

Whoever may have to ask for a passphrase holds one of these; what it has been given opens the
history as often as wanted, and the saved sequences with it. Knows nothing about who is asked.
"""

from pathlib import Path

from localseek.errors import LocalseekError
from localseek.store.history import cipher
from localseek.store.history.conversion import SEQUENCES, convert
from localseek.store.history.database import LockedError
from localseek.store.history.history import History, own_path
from localseek.store.history.leftovers import history_file
from localseek.system import paths


class Vault:
    """One history, locked or not; made before it is opened."""

    def __init__(self, path: Path | None = None) -> None:
        """Take the history in LOCALSEEK_HOME, or another file; nothing is made."""
        self.path = path or history_file(paths.home())
        self.encrypted = cipher.is_encrypted(self.path)
        self._own = path is None
        self._key: cipher.Key | None = None
        self._sequence_key = b""

    @property
    def locked(self) -> bool:
        """Tell whether a passphrase is needed, and none was given."""
        return self.encrypted and self._key is None

    @property
    def askable(self) -> bool:
        """Tell whether somebody should be asked for the passphrase."""
        return self.locked and cipher.is_installed()

    def need_library(self) -> None:
        """Raise LockedError, saying what to install, if a passphrase would be of no use."""
        try:
            cipher.library()
        except LocalseekError as error:
            what = f"The history {self.path} is encrypted, and {error.message}"
            raise LockedError(what, error.hint) from error

    def unlock(self, passphrase: str) -> None:
        """Take a passphrase; raises WrongPassphraseError, HistoryError."""
        key = cipher.key_of(self.path, passphrase)
        with History(self.path, key=key) as history:
            self._sequence_key = history.secret(SEQUENCES) or b""
        self._key = key

    def open(self) -> History:
        """Open the history, made if it is missing; raises LockedError, HistoryError."""
        if self._own:
            own_path()  # its folder
        if self.locked:
            self.need_library()
        return History(self.path, key=self._key)

    def sequence_key(self) -> str:
        """Give the key of the saved sequences in hexadecimal, "" where they are not encrypted."""
        return self._sequence_key.hex()

    def encrypt(self, passphrase: str) -> bool:
        """Encrypt the history, or give it another passphrase; raises HistoryError.

        Nothing may have it open, this vault's own `History` neither. Tells whether the file before
        was overwritten: one that has other names, as backups make them, is not.
        """
        if self._own:
            own_path()
        return self._convert(cipher.derive(passphrase, cipher.new_salt()))

    def decrypt(self) -> bool:
        """Store the history without encryption again, as `encrypt` does; raises HistoryError."""
        return self._convert(None)

    def _convert(self, new: cipher.Key | None) -> bool:
        overwritten = convert(self.path, self._key, new, paths.folder("sequences"))
        self.encrypted, self._key = new is not None, new
        return overwritten
