"""The one error that a conversion raises for anything a user can mend.

Its text is one line: what is wrong, naming the file, tensor or key, and what to do about it.
Only the command line turns it into output.
"""

from __future__ import annotations


class ConvertError(Exception):
    """A conversion that cannot go on; `str(error)` is one line for the user."""


class UnfinishedError(ConvertError):
    """A conversion that was stopped from outside; what it has done is kept, so it can go on."""
