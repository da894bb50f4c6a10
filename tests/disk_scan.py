"""What the verbs leave on the disk: marked words said to each, then looked for in every byte.

Run by hand with the real nano, `python tests/disk_scan.py [FOLDER]`, and by tests/cli/test_disk.py
with the fake engine. Prints for every file below the home, TMPDIR and the XDG folders which marks
it holds, as UTF-8 or UTF-16. Swap and core dumps are beyond it.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120.0


def mark(place: str) -> str:
    """Give the mark of one place: letters that nothing else has."""
    return f"QZX-{place.upper()}-XZQ"


class Place:
    """A home, folders for temporary files and XDG's, and the user's own folder, all of them new."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.own = folder, folder / "home", folder / "own"
        self.state = [self.home, *(folder / name for name in ("tmp", "config", "cache", "data"))]
        for one in (*self.state[1:], self.own, folder / "runtime"):
            one.mkdir(parents=True)
        self.environment = {
            **os.environ, "LOCALSEEK_HOME": str(self.home), "TMPDIR": str(folder / "tmp"),
            "XDG_CONFIG_HOME": str(folder / "config"), "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_DATA_HOME": str(folder / "data"), "XDG_RUNTIME_DIR": str(folder / "runtime"),
            "HOME": str(folder / "own"), "PYTHONPATH": str(ROOT), "TERM": "xterm-256color",
        }  # fmt: skip

    def found(self) -> dict[str, set[str]]:
        """Give which files of the state hold which marks."""
        return {
            str(path.relative_to(self.folder)): marks
            for one in self.state
            for path in one.rglob("*")
            if path.is_file() and (marks := set(marks_in(path.read_bytes())))
        }

    def loose(self) -> list[str]:
        """Give the files and folders of the state that others may read, write or enter."""
        everything = [self.home, *self.home.rglob("*")]
        return [
            f"{path.relative_to(self.folder)} {path.stat().st_mode & 0o777:o}"
            for path in everything if path.stat().st_mode & 0o077
        ]  # fmt: skip


def marks_in(content: bytes) -> Iterator[str]:
    """Give the marks that bytes hold, in either coding."""
    for coding in ("utf-8", "utf-16-le", "utf-16-be"):
        begin, end = "QZX-".encode(coding), "-XZQ".encode(coding)
        at = content.find(begin)
        while at >= 0:
            stop = content.find(end, at)
            if 0 < stop - at < 200:
                yield content[at:stop].decode(coding, "replace").removeprefix("QZX-").lower()
            at = content.find(begin, at + 1)


def say(
    place: Place, command: list[str], *words: str, stdin: str = "", most_status: int = 0
) -> None:
    """Run a verb to its end."""
    done = subprocess.run(
        [*command, *words], input=stdin, env=place.environment, cwd=place.own, text=True,
        capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert 0 <= done.returncode <= most_status, (words, done.stderr)


def talk_to_all(place: Place, command: list[str], model: tuple[str, ...]) -> None:
    """Ask every verb, with marks in the prompt, the system prompt, a file, a schema, the answer."""

    def words(verb: str) -> list[str]:
        return ["-s", f"say {mark(verb + '-system')}", "--max-tokens", "40", *model]

    (place.own / "notes.txt").write_text(f"notes {mark('file')}")
    (place.own / "shape.json").write_text(json.dumps({"const": mark("schema")}))
    say(place, command, "ask", f"say {mark('ask')}", "-f", "notes.txt", *words("ask"))
    say(place, command, "ask", f"say {mark('saved')}", "--save", *words("saved"))
    shaped = ("--schema", "shape.json", *words("ask"))  # which nano may not finish: status 1
    say(place, command, "ask", f'say "{mark("schema")}"', *shaped, most_status=1)
    say(place, command, "chat", *words("chat"), stdin=f"say {mark('chat')}\n")
    say(place, command, "chat", "--no-save", *words("unsaved"), stdin=f"say {mark('unsaved')}\n")
    (place.own / "in.jsonl").write_text(json.dumps({"prompt": f"say {mark('batch')}"}) + "\n")
    say(place, command, "batch", "in.jsonl", "out.jsonl", *words("batch"))
    serve(place, [*command, "serve", *words("serve"), "--json"])


def serve(place: Place, command: list[str]) -> None:
    """Ask a server, whose socket is in the user's own folder."""
    path = place.own / "s"
    server = subprocess.Popen(
        [*command, "--socket", str(path)], env=place.environment, cwd=place.own, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        ready = json.loads(server.stdout.readline())
        body = json.dumps({
            "messages": [{"role": "user", "content": f"say {mark('serve')}"}], "max_tokens": 40,
            "model": ready["model"],
        }).encode()  # fmt: skip
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " \
            f"{ready['token']}\r\nContent-Type: application/json\r\nConnection: close\r\n" \
            f"Content-Length: {len(body)}\r\n\r\n"  # fmt: skip
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(head.encode() + body)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert b" 200 " in answer[:20], answer
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def report(found: Mapping[str, set[str]]) -> str:
    """Give the findings as lines."""
    return "\n".join(f"{name}: {', '.join(sorted(marks))}" for name, marks in found.items())


if __name__ == "__main__":
    os.umask(0)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(sys.argv[1] if len(sys.argv) > 1 else folder) / "scan")
        talk_to_all(place, [sys.executable, "-m", "localseek"], ("--prompt-cache",))
        print(report(place.found()) or "no mark in any file")
        print("others can read:", ", ".join(place.loose()) or "nothing")
