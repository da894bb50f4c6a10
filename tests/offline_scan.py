"""What every verb asks of the kernel about sockets, seen from outside by strace.

`python tests/offline_scan.py [VERB]…` runs ask, batch, convert, a session of the app and doctor
with nano, follows all their processes and threads, and prints each socket, connection and address
that was asked for, but for pairs within a process and Unix sockets; last `doctor --offline`, whose
attempts show that the scan sees. tests/airgap/test_strace.py runs it too. Needs strace.
"""

import json
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120.0
CALLS = "socket,connect,bind,listen,accept,accept4,sendto,sendmsg,sendmmsg,io_uring_setup"
TRACE = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-e", "signal=none", "-o"]
OURS = [sys.executable, "-P", "-m", "localseek"]
REACHING = re.compile(r"AF_(?!UNIX)\w+|io_uring_setup|listen\(|accept4?\(")


def reaching(trace: str) -> list[str]:
    """Give the lines of a trace that have to do with a network, without process numbers."""
    return [
        line.partition(" ")[2].strip() for line in trace.splitlines() if REACHING.search(line)
    ]  # fmt: skip


class Scan:
    """A home of its own, and commands that are watched in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ, "LOCALSEEK_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT),
            "TERM": "xterm-256color",
        }  # fmt: skip

    def watched(self, *words: str, status: int = 0) -> list[str]:
        """Run a verb to its end, and give what reached out."""
        trace = self.folder / "trace"
        done = subprocess.run(
            [*TRACE, str(trace), *OURS, *words], env=self.environment, cwd=self.folder,
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == status, (words, done.returncode, done.stderr[-2000:])
        return reaching(trace.read_text(errors="replace"))

    def ask(self) -> list[str]:
        return self.watched("ask", "What is 12 * 34?", "--prompt-cache")

    def batch(self) -> list[str]:
        rows = [json.dumps({"prompt": f"What is {n} + 12?"}) + "\n" for n in range(3)]
        (self.folder / "in.jsonl").write_text("".join(rows))
        return self.watched("batch", "in.jsonl", "out.jsonl")

    def convert(self) -> list[str]:
        source = ROOT / "localseek" / "nano" / "checkpoint"
        return self.watched("convert", str(source), "nano.gguf", "--type", "Q4_K_M")

    def doctor(self) -> list[str]:
        return self.watched("doctor")

    def proof(self) -> list[str]:
        """Let doctor reach out: what this finds shows that the scan sees."""
        return self.watched("doctor", "--offline")

    def app(self) -> list[str]:
        """Open the app in a terminal, ask something, leave."""
        trace = self.folder / "trace"
        main, child = pty.openpty()
        app = subprocess.Popen(
            [*TRACE, str(trace), *OURS, "--no-save"], stdin=child, stdout=child, stderr=child,
            env=self.environment | {"COLUMNS": "100", "LINES": "30"}, cwd=self.folder,
            start_new_session=True,
        )  # fmt: skip
        os.close(child)
        try:
            _until(main, "offline")  # the engine is loaded
            os.write(main, b"What is 12 * 34?\r")
            _until(main, "408")
            os.write(main, b"\x11")  # Ctrl+Q
            while _read(main) is not None and app.poll() is None:
                continue
            assert app.wait(PATIENCE_S) == 0
        finally:
            app.kill()
            app.wait()
            os.close(main)
        return reaching(trace.read_text(errors="replace"))


def _read(main: int) -> str | None:
    if not select.select([main], [], [], 0.5)[0]:
        return ""
    try:
        return os.read(main, 65536).decode(errors="replace")
    except OSError:  # the program has ended
        return None


def _until(main: int, text: str) -> None:
    deadline, seen = monotonic() + PATIENCE_S, ""
    while text not in seen:
        assert monotonic() < deadline, f"{text!r} never came: {seen[-2000:]}"
        more = _read(main)
        assert more is not None, f"the app ended: {seen[-2000:]}"
        seen += more


def verbs(scan: Scan) -> dict[str, Callable[[], list[str]]]:
    """Give what is watched, by name."""
    return {"ask": scan.ask, "batch": scan.batch, "convert": scan.convert, "doctor": scan.doctor,
            "app": scan.app, "proof": scan.proof}  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        known = verbs(Scan(Path(folder)))
        counts = {name: known[name]() for name in sys.argv[1:] or known}
    for name, found in counts.items():
        print(f"{name}: {len(found)} calls that have to do with a network", *found, sep="\n  ")
    sys.exit(any(found for name, found in counts.items() if name != "proof"))
