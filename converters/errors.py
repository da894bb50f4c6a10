"""The error that a conversion raises for anything a user can mend.

Its text is one line: what is wrong, naming the file, tensor or key, and what to do about it.
Only the command line turns it into output.
"""

from __future__ import annotations

_MOST_CHARACTERS = 500


class ConvertError(Exception):
    """A conversion that cannot go on; `str(error)` is one line for the user."""

    def __str__(self) -> str:
        # A hostile file may put anything into a message: a line stays a line that can be read.
        text = " ".join(super().__str__().split())
        if len(text) <= _MOST_CHARACTERS:
            return text
        return f"{text[: _MOST_CHARACTERS - 101]} … {text[-98:]}"


class OptionError(ConvertError):
    """Options that nothing could be made of, whatever the source holds."""


class UnfinishedError(ConvertError):
    """A conversion that was stopped from outside; what it has done is kept, so it can go on."""


class RefusedError(UnfinishedError):
    """A conversion that was not begun, so that what an earlier one has done stays as it is."""


class MismatchError(ConvertError):
    """A plan that turned out to be wrong: nothing that was made by it is of use."""
