"""Faults of the child itself: where they happened goes to its log, the words of a prompt never.

The text of an exception may quote what was being worked on. That of the system's own errors tells
why, and quotes nothing. Knows nothing about the engine.
"""

import sys
import threading
import traceback
from types import TracebackType

TELLING = (MemoryError, OSError, ImportError)
LEFT_OUT = "(its text is left out: it may quote a prompt)"


def keep_words_out_of_tracebacks() -> None:
    """Let uncaught exceptions, of threads too, be written without their text."""
    sys.excepthook = write_fault
    threading.excepthook = lambda fault: write_fault(
        fault.exc_type, fault.exc_value, fault.exc_traceback
    )


def write_fault(
    kind: type[BaseException], error: BaseException | None, place: TracebackType | None
) -> None:
    """Write where an exception came from, and its text if that is the system's."""
    sys.stderr.write("".join(traceback.format_tb(place)))
    telling = isinstance(error, TELLING)
    sys.stderr.write(f"{kind.__name__}: {error if telling else LEFT_OUT}\n")
    sys.stderr.flush()
