"""The app's way to a terminal that may be closed at any moment.

Textual draws on a thread of its own. Were a write to fail there, that thread would end, its queue
fill up, and the app wait for it for ever, its engine loaded. So what nobody sees is dropped, and
the system's SIGHUP ends the app in good order. Takes Textual's driver, knows nothing about the app.
"""

import contextlib
from typing import Any, TextIO, cast

from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver


class Outliving:
    """A file for writing that never fails."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            return self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what can be passed on."""
        with contextlib.suppress(OSError):
            self._file.flush()

    def fileno(self) -> int:
        """Give the number of the file."""
        return self._file.fileno()


class OutlivingDriver(LinuxDriver):
    """Textual's driver, drawing on a terminal that may be gone."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._file = cast(Any, Outliving(cast(TextIO, self._file)))


def outliving(driver: type[Driver]) -> type[Driver]:
    """Give the driver to use in place of Textual's choice; another one stays."""
    return OutlivingDriver if driver is LinuxDriver else driver
