"""The errors that people see. A message says what happened; a hint says how to mend it.

Only the borders (command line, TUI) turn these into text and an exit status.
"""


class LocalseekError(Exception):
    """Something went wrong that the user can understand and mend."""

    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message, self.hint = message, hint


class UsageError(LocalseekError):
    """The command line, a setting or an input file does not say what it must."""

    exit_status = 2


class ModelError(LocalseekError):
    """A model file is missing, damaged, or not one that can run here."""


class ContextError(ModelError):
    """The prompt alone is longer than the context."""


class EngineError(LocalseekError):
    """The engine child could not start, refused a request, or died."""
