"""The engine seen from outside: a child process, a line to it, lines from it, its death.

Takes load options, gives decoded messages. The child is a separate process, so that a fault in
native code never takes the terminal down. Only `localseek/api` uses it: whoever wants answers
asks an `Engine` there. Knows nothing about llama.cpp, nor about which request a line belongs to.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from localseek.airgap.hook import OFFLINE
from localseek.engine.process import protocol
from localseek.engine.process.deaths import death_message, last_lines, lost_worker
from localseek.errors import EngineError, LocalseekError, UsageError
from localseek.options import LoadOptions, ModelInfo
from localseek.system import environment, paths, private
from localseek.system.huge_pages import with_huge_pages

QUIT_SECONDS = 3.0
DYING_SECONDS = 10.0  # its pipes close before the system has cleared its memory away
SAVE_SECONDS = 120.0  # a long sequence of a large model has some gigabytes to write


def program() -> list[str]:
    """Give the command that is an engine; tests put a fake here."""
    # -P: nothing is imported from the folder that the user stands in.
    return [sys.executable, "-P", "-m", "localseek.engine"]


def _opened_log() -> tuple[Path, BinaryIO]:
    """Open the engine's log; where it cannot be written, it answers without one."""
    try:
        path = paths.log_file("engine")
        return path, private.opened(path, "ab")
    except (OSError, LocalseekError):
        return Path(os.devnull), private.opened(Path(os.devnull), "ab")


def refusal(message: dict[str, Any]) -> LocalseekError:
    """Give the error that a child's `Failed` stands for: a user's mistake stays one."""
    kind = UsageError if message.get("wrong_use") else EngineError
    return kind(message["message"], message["hint"])


class Child:
    """A running engine child.

    `send` and `kill` may be called from any thread, `receive` from one.
    """

    def __init__(self, options: LoadOptions) -> None:
        self.options = options
        environment.layers_off()  # raises UsageError for what is no layer
        self.log_path, log = _opened_log()
        remotes = [word for one in options.fixed.remote for word in ("--remote", one)]
        if remotes:
            remotes += ["--remote-timeout", str(options.fixed.remote_timeout_s)]
        self._write_lock = threading.Lock()
        try:
            with log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    [*program(), *remotes], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=log, start_new_session=True, env=with_huge_pages() | OFFLINE,
                )  # fmt: skip
        except OSError as error:
            raise EngineError(f"The engine could not be started: {error}.") from error

    @property
    def pid(self) -> int:
        """Give the process number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self._process.poll() is None

    def load(self, progress: Callable[[float], None] | None = None) -> ModelInfo:
        """Load the model; `progress` is called with 0..1.

        Raises EngineError with the cause, UsageError for options that cannot be meant.
        """
        self.send(protocol.encode({"op": "load", **asdict(self.options)}))
        while True:
            message = self._told()
            if message["event"] == "loading" and progress:
                progress(message["done"])
            if message["event"] == "loaded":
                return ModelInfo(**message["info"])

    def ask(self, op: str, **more: str) -> dict[str, Any]:
        """Ask something that needs no model; raises EngineError or UsageError."""
        self.send(protocol.encode({"op": op, **asdict(self.options), **more}))
        return self._told()

    def send(self, line: bytes) -> None:
        """Send a line; raises EngineError when nobody reads it any more."""
        stdin = self._process.stdin
        assert stdin is not None  # it is a pipe
        try:
            with self._write_lock:
                stdin.write(line)
                stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: it was closed
            raise EngineError(*self.death()[:2]) from error

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None: there are no more. Raises ValueError for nonsense."""
        stdout = self._process.stdout
        assert stdout is not None  # it is a pipe
        line = stdout.readline()
        if not line.endswith(b"\n"):
            return None
        return protocol.decode(line)

    def death(self) -> tuple[str, str, list[str]]:
        """Say how it ended, what to do, and the last lines of its log."""
        try:
            status: int | None = self._process.wait(DYING_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        lines = last_lines(self.log_path, self._log_start)
        if self.options.fixed.remote and (lost := lost_worker(self.log_path, self._log_start)):
            return f"The worker {lost}.", "Start it again, or go on without --remote.", lines
        return *death_message(status, self.log_path, lines), lines

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def end(self) -> None:
        """Let it save what it must and end, by force if it does not listen; others may read on."""
        with contextlib.suppress(EngineError):
            self.send(protocol.encode({"op": "quit"}))
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(SAVE_SECONDS if self.options.prompt_cache else QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End it, and close what it was read from."""
        self.end()
        if self._process.stdout:
            self._process.stdout.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _told(self) -> dict[str, Any]:
        """Give the next message, which is no refusal."""
        message = self.receive()
        if message is None:
            raise EngineError(*self.death()[:2])
        if message["event"] == "Failed":
            raise refusal(message)
        return message
