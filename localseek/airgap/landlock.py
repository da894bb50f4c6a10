"""Landlock: the files that a process can open from now on, and the only TCP ports it connects to.

Takes a `View`, gives the kernel's version of Landlock and holds the process to the view; there is
no way back. No program can be started then either, whatever it is allowed to read. Files are known
by what they are, not by name: one that is put in another's place later is not in the view.
"""

import contextlib
import ctypes
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localseek.airgap.kernel import call, take_no_new_rights

VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
# LANDLOCK_ACCESS_FS_* of linux/landlock.h
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK = (1 << bit for bit in range(6, 12))
MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in range(12, 16))
FILES_BY_VERSION = {1: 13, 2: 14, 3: 15, 5: 16}  # version → how many of these rights it knows
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # that a single file can have
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE | REMOVE_DIR
USE = READ | WRITE_FILE | IOCTL_DEV  # of devices
BIND_TCP, CONNECT_TCP, NET_VERSION = 1, 2, 4
ABSTRACT_UNIX, SIGNALS, SCOPE_VERSION = 1, 2, 6
BENEATH, NET_PORT = 1, 2  # enum landlock_rule_type


@dataclass(frozen=True)
class View:
    """What a process can open: paths, a folder with all below it; what is not there is left out."""

    read: tuple[Path, ...] = ()
    written: tuple[Path, ...] = ()
    used: tuple[Path, ...] = ()  # devices
    listed: tuple[Path, ...] = ()  # folders of which the names alone are seen
    ports: tuple[int, ...] = ()  # of TCP, to connect to


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("access", ctypes.c_uint64), ("folder", ctypes.c_int32)]


class _Port(ctypes.Structure):
    _fields_ = [("access", ctypes.c_uint64), ("port", ctypes.c_uint64)]


def version() -> int:
    """Give the version of Landlock that the kernel has; raises Refused if it has none."""
    return call("landlock_create_ruleset", None, 0, VERSION)


def hold_to(view: View) -> int:
    """Let this process, and its threads from now on, open nothing else; raises Refused.

    Gives Landlock's version.
    """
    there = version()
    known = max(count for since, count in FILES_BY_VERSION.items() if since <= there)
    handled = (1 << known) - 1
    ruleset = _Ruleset(
        handled,
        BIND_TCP | CONNECT_TCP if there >= NET_VERSION else 0,
        ABSTRACT_UNIX | SIGNALS if there >= SCOPE_VERSION else 0,
    )
    size = 24 if there >= SCOPE_VERSION else 16 if there >= NET_VERSION else 8
    rules = call("landlock_create_ruleset", ruleset, size, 0)
    try:
        _allow(rules, view.read, READ & handled)
        _allow(rules, view.written, WRITE & handled)
        _allow(rules, view.used, USE & handled)
        _allow(rules, view.listed, READ_DIR & handled)
        for port in view.ports if there >= NET_VERSION else ():
            call("landlock_add_rule", rules, NET_PORT, _Port(CONNECT_TCP, port), 0)
        take_no_new_rights()
        call("landlock_restrict_self", rules, 0)
    finally:
        os.close(rules)
    return there


def _allow(rules: int, paths: Sequence[Path], access: int) -> None:
    for path in dict.fromkeys(paths):
        with contextlib.suppress(OSError, ValueError):  # it is not there, or cannot be
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                is_folder = stat.S_ISDIR(os.fstat(opened).st_mode)
                wanted = access if is_folder else access & OF_FILES
                if wanted:
                    call("landlock_add_rule", rules, BENEATH, _Beneath(wanted, opened), 0)
            finally:
                os.close(opened)




