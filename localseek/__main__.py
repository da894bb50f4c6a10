"""Where the program starts: `localseek`, and `python -m localseek`.

Until a verb is loaded, and when it is done, Ctrl-C simply ends the process: there is
nothing to tidy up, and nobody wants to read a traceback of imports.
"""

import _signal  # type: ignore[import-not-found]  # has no stubs; `signal` takes 5 ms to import
import sys

KEPT = _signal.getsignal(_signal.SIGINT) is not _signal.default_int_handler  # ignored: by nohup


def run() -> int:
    """Run the command line and give the exit status."""
    _let_interrupts_end_it()
    from localseek.cli import main  # noqa: PLC0415 - it is loaded where Ctrl-C is quiet already

    try:
        return main(ready=_begin)
    finally:
        _let_interrupts_end_it()


def _begin(verb: str) -> None:
    from localseek.airgap.hook import begin_offline  # noqa: PLC0415 - `--help` needs none of it

    begin_offline(verb)
    if not KEPT:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _let_interrupts_end_it() -> None:
    if not KEPT:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(run())
