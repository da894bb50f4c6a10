"""A call into native code that may nest deeply, on a thread whose stack is as large as it needs.

Takes the call and the bytes, gives its result. Knows nothing about what is called.
"""

import threading
from collections.abc import Callable

from localseek.errors import EngineError

LEAST, MOST = 16 * 2**20, 64 * 2**30  # bytes of addresses; pages are taken as they are used


def on_a_large_stack(call: Callable[[], int], stack_bytes: int) -> int:
    """Run a call on a stack of so many bytes; raises EngineError where there is no room for it."""
    found: list[int] = []
    before = threading.stack_size(max(LEAST, min(MOST, -(-stack_bytes // 4096) * 4096)))
    try:
        thread = threading.Thread(target=lambda: found.append(call()))
        thread.start()
    except RuntimeError as error:
        raise EngineError("The text is too long for this machine's memory.", "Cut it.") from error
    finally:
        threading.stack_size(before)
    thread.join()
    return found[0]
