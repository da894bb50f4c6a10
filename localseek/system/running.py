"""Names of running processes that no other process ever has, whatever the clock does.

A number is given again after a while, and the time at which a process began moves with the clock:
both are no names. On Linux one is the number, the system's start, and the ticks from there to the
process's own. Takes and gives text for a database. Knows nothing about who writes what.
"""

import os
from pathlib import Path

PROCESSES = Path("/proc")
STARTED = 19  # of the fields of /proc/PID/stat after the name: when it began (proc_pid_stat(5))


def this_process() -> str:
    """Name this process."""
    return name_of(os.getpid())


def is_running(name: str) -> bool:
    """Tell whether the process that has this name still runs."""
    number = name.partition(" ")[0]
    if not number.isdigit():
        return False
    # An earlier localseek named it by the clock, and may still be running.
    return name in (name_of(int(number)), _by_the_clock(int(number)))


def name_of(number: int) -> str:
    """Name the process that has a number now; "" if there is none."""
    try:
        words = (PROCESSES / str(number) / "stat").read_text(errors="replace")
        start = (PROCESSES / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # it is gone, or this is not Linux
        return "" if PROCESSES.is_dir() else _by_the_clock(number)
    state, *fields = words.rpartition(")")[2].split()
    return "" if state == "Z" else f"{number} {fields[STARTED - 1]} {start}"


def _by_the_clock(number: int) -> str:
    import psutil  # noqa: PLC0415 — the app's first picture does not wait for it

    try:
        return f"{number} {psutil.Process(number).create_time():.2f}"
    except psutil.Error:
        return ""
