"""The engine seen from outside: start the child, send requests, yield events, notice its death.

Takes a model file and `Request`s, gives `Event`s. The child is a separate process, so that a
fault in native code ends in a `Failed` event and never takes the terminal down. Knows nothing
about llama.cpp.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localseek.engine.process import measurement, protocol
from localseek.engine.process.bridge import LOST
from localseek.engine.process.measurement import Measured, Task
from localseek.errors import EngineError, LocalseekError, UsageError
from localseek.events import Event, Failed, Finished
from localseek.options import Fixed, LoadOptions, ModelInfo, Request
from localseek.system import paths, private
from localseek.system.huge_pages import with_huge_pages

QUIT_SECONDS = 3.0
SAVE_SECONDS = 120.0  # a long sequence of a large model has some gigabytes to write


LAST_LINES, LAST_BYTES = 12, 4096  # of a dead engine's log
TELLING = re.compile(r"GGML_ASSERT|Error\b|error:|out of memory|bad_alloc", re.I)
NO_MEMORY = re.compile(  # ggml's assertion on its own buffer, C++, Python, devices
    r"mem_buffer != NULL|bad_alloc|MemoryError|out of memory|insufficient memory"
    r"|failed to allocate|cannot allocate",
    re.I,
)


def last_lines(log: Path, start: int) -> list[str]:
    """Give the last lines that were written to a log after `start` bytes."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(start, end - LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-LAST_LINES:]


def lost_worker(log: Path, start: int) -> str:
    """Give what the bridge wrote of a worker that is lost, "" if it wrote nothing."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return next(
        (line.removeprefix(LOST) for line in text.splitlines() if line.startswith(LOST)), ""
    )


def death_message(status: int | None, log: Path, lines: list[str]) -> tuple[str, str]:
    """Say how the child ended, its last words if they tell why, and where the others are."""
    how = "stopped" if status is None else f"died of signal {-status}" if status < 0 else (
        f"exited with status {status}"
    )  # fmt: skip
    if status != 0 and any(NO_MEMORY.search(line) for line in lines):
        return (
            f"The engine ran out of memory and {how}.",
            f"A smaller --ctx or model needs less, or close other programs. Its log is {log}.",
        )
    if status == -signal.SIGKILL:
        return f"The engine {how}.", f"Systems do so when memory runs out. Its log is {log}."
    words = next((line for line in reversed(lines) if TELLING.search(line)), "")
    quoted = f" Its last words: {words[:200]}" if words else ""
    return f"The engine {how}.{quoted}", f"Its log is {log}."


def refusal(message: dict[str, Any]) -> LocalseekError:
    """Give the error that a child's `Failed` stands for: a user's mistake stays one."""
    kind = UsageError if message.get("wrong_use") else EngineError
    return kind(message["message"], message["hint"])


class Engine:
    """A running engine child with one loaded model.

    Use as a context manager, or call `close`. `generate` runs one request; several at a time run
    with `submit` and `next_event`, each from one thread. `cancel` may be called from any thread.
    """

    def __init__(self, options: LoadOptions, command: list[str] | None = None) -> None:
        self.options = options
        try:
            self.log_path = paths.log_file("engine")
        except LocalseekError:  # a home that cannot be written to: it answers without a log
            self.log_path = Path(os.devnull)
        # -P: nothing is imported from the folder that the user stands in.
        remotes = [word for one in options.fixed.remote for word in ("--remote", one)]
        if remotes:
            remotes += ["--remote-timeout", str(options.fixed.remote_timeout_s)]
        self._command = [*(command or [sys.executable, "-P", "-m", "localseek.engine"]), *remotes]
        self._number = 0
        self._in_flight: set[int] = set()
        self._write_lock = threading.Lock()
        try:
            with private.opened(self.log_path, "ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                    start_new_session=True, env=with_huge_pages(),
                )  # fmt: skip
        except OSError as error:
            raise EngineError(f"The engine could not be started: {error}.") from error
        self.info: ModelInfo | None = None
        self.last_notices: list[str] = []  # what came after the last answer; known once closed

    @property
    def pid(self) -> int:
        """Give the process number of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Tell whether the child still runs."""
        return self._process.poll() is None

    def load(self, progress: Callable[[float], None] | None = None) -> ModelInfo:
        """Load the model; `progress` is called with 0..1.

        Raises EngineError with the cause, UsageError for options that cannot be meant.
        """
        self._send(protocol.encode({"op": "load", **asdict(self.options)}))
        while True:
            message = self._receive()
            if message is None:
                raise EngineError(*self._death()[:2])
            if message["event"] == "loading" and progress:
                progress(message["done"])
            if message["event"] == "Failed":
                raise refusal(message)
            if message["event"] == "loaded":
                self.info = ModelInfo(**message["info"])
                return self.info

    def submit(self, request: Request) -> int:
        """Send a request and give its number; `next_event` gives what comes of it.

        As many as `info.parallel` are answered at once, others wait. Raises EngineError when the
        engine is gone.
        """
        self._number += 1
        self._in_flight.add(self._number)  # first: its events may be waited for already
        try:
            self._send(protocol.encode_request(self._number, request))
        except EngineError:
            self._in_flight.discard(self._number)
            raise
        return self._number

    def next_event(self) -> tuple[int, Event]:
        """Wait for the next event of any request that is in flight, and give it with its number.

        The last of each request is `Finished` or `Failed`; all fail when the engine is gone. Raises
        EngineError when it is gone and nothing is in flight.
        """
        while True:
            message = self._receive()
            if message is None:
                how, where, lines = self._death()
                if not self._in_flight:
                    raise EngineError(how, where)
                return self._in_flight.pop(), Failed(how, where, fatal=True, log=lines)
            number = message.get("request")
            if number in self._in_flight:
                event = protocol.decode_event(message)
                if isinstance(event, Finished | Failed):
                    self._in_flight.discard(number)
                return number, event
            if message["event"] == "Notice" and self._in_flight:  # of an answer that was over
                return max(self._in_flight), protocol.decode_event(message)

    def generate(self, request: Request) -> Iterator[Event]:
        """Run a request alone and yield its events; the last is `Finished` or `Failed`.

        Closing the iterator early cancels the request and leaves the engine ready for the next.
        """
        try:
            number = self.submit(request)
        except EngineError as error:
            yield Failed(error.message, error.hint, fatal=True)
            return
        try:
            while self._in_flight:
                yield self.next_event()[1]
        finally:
            if number in self._in_flight:
                self.cancel()
                while self._in_flight:
                    self.next_event()

    def keep(self) -> str:
        """Save what was read last, as a prompt cache does; give the file's name, "" if none.

        For an engine with a prompt cache, between requests. Raises EngineError.
        """
        self._send(protocol.encode({"op": "keep"}))
        while (message := self._receive()) is not None:
            if message["event"] == "kept":
                return str(message["name"])
        raise EngineError(*self._death()[:2])

    def measure(self, task: Task) -> Measured:
        """Let the child measure something, until `cancel`; raises EngineError with its reason."""
        self._number += 1
        self._in_flight.add(self._number)
        try:
            self._send(measurement.encode_task(self._number, task))
            while (message := self._receive()) is not None:
                if message.get("request") == self._number:
                    if message["event"] == "Failed":
                        raise refusal(message)
                    return measurement.decode_measured(message)
        finally:
            self._in_flight.discard(self._number)
        raise EngineError(*self._death()[:2])

    def cancel(self, number: int | None = None) -> None:
        """Ask the child to end one request, or all in flight; `Finished` says `cancelled` then."""
        for one in tuple(self._in_flight) if number is None else (number,):
            with contextlib.suppress(EngineError):
                self._send(protocol.encode({"op": "cancel", "request": one}))

    def close(self) -> None:
        """End the child, by force if it does not listen."""
        with contextlib.suppress(EngineError):
            self._send(protocol.encode({"op": "quit"}))
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(SAVE_SECONDS if self.options.prompt_cache else QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout and not self._process.stdout.closed:
            for line in self._process.stdout:
                if line.startswith(b'{"event":"Notice"') and line.endswith(b"\n"):
                    self.last_notices.append(protocol.decode(line)["text"])
            self._process.stdout.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, line: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None  # it is a pipe
        try:
            with self._write_lock:
                stdin.write(line)
                stdin.flush()
        except (OSError, ValueError) as error:
            raise EngineError(*self._death()[:2]) from error

    def _receive(self) -> dict[str, Any] | None:
        stdout = self._process.stdout
        assert stdout is not None  # it is a pipe
        line = stdout.readline()
        if not line.endswith(b"\n"):
            return None
        return protocol.decode(line)

    def _death(self) -> tuple[str, str, list[str]]:
        try:
            status: int | None = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            status = None
        lines = last_lines(self.log_path, self._log_start)
        if self.options.fixed.remote and (lost := lost_worker(self.log_path, self._log_start)):
            return f"The worker {lost}.", "Start it again, or go on without --remote.", lines
        return *death_message(status, self.log_path, lines), lines

    def ask(self, op: str) -> dict[str, Any]:
        """Ask the child something that is not a generation; raises EngineError or UsageError."""
        self._send(protocol.encode({"op": op, **asdict(self.options)}))
        message = self._receive()
        if message is None:
            raise EngineError(*self._death()[:2])
        if message["event"] == "Failed":
            raise refusal(message)
        return message


def diagnose(remote: tuple[str, ...] = ()) -> dict[str, str]:
    """Give what the engine child says of its build, devices and workers; raises EngineError."""
    with Engine(LoadOptions(model="", fixed=Fixed(remote=remote))) as engine:
        return dict(engine.ask("doctor")["facts"])
