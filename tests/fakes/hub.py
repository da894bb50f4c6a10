"""A hub on loopback that speaks the Hugging Face Hub's protocol, and fails as real ones do.

Large files (`*.gguf`, `*.safetensors`, `*.bin`) lie at a second server, as at a CDN: the hub
redirects there. What comes in is written down in `requests`; `faults` says what goes wrong.
"""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "c0ffee" * 6 + "c0ff"
LARGE = (".gguf", ".safetensors", ".bin")
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Seen:
    """A request: which server got it, and what of it matters."""

    server: str  # "hub" or "cdn"
    method: str
    path: str
    range: str
    authorization: str


@dataclass
class Faults:
    """What goes wrong; each is used up as it happens, unless its name says always."""

    cut_after: dict[str, list[int]] = field(default_factory=dict)  # file → bytes, by request
    always_cut_after: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)  # file → how often its content is wrong
    wrong_at: int = -1  # the byte that is
    statuses: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    always: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    ignore_ranges: bool = False
    bytes_per_s: int = 0  # 0: as fast as it goes
    without_sizes: bool = False  # the mirror's listing has none; its tree has
    token: str = ""  # that a request needs
    down: bool = False


class Hub:
    """Repositories by name, each a history of commits; the newest is main."""

    def __init__(self, repositories: Mapping[str, Files], cards: Mapping[str, object]) -> None:
        self.history: dict[str, dict[str, Files]] = {
            name: {COMMIT: files} for name, files in repositories.items()
        }
        self.cards = dict(cards)
        self.gated: dict[str, str] = {}
        self.faults = Faults()
        self.requests: list[Seen] = []
        self.address = self.cdn_address = ""
        self.lock = threading.Lock()

    def push(self, name: str, files: Files) -> str:
        """Add a commit and give its name."""
        commit = hashlib.sha1(f"{name}{len(self.history[name])}".encode()).hexdigest()
        self.history[name][commit] = files
        return commit

    def downloads(self, file: str = "") -> list[Seen]:
        """Give the requests for the bytes of large files."""
        return [one for one in self.requests if one.server == "cdn" and one.path.endswith(file)]

    def bytes_asked_from(self, file: str) -> list[int]:
        """Give the first bytes of the ranges that were asked for."""
        return [int(one.range[6:].split("-")[0] or 0) if one.range else 0
                for one in self.downloads(file)]  # fmt: skip

    def files(self, name: str, revision: str) -> tuple[str, Files] | None:
        commits = self.history.get(name, {})
        commit = list(commits)[-1:] if revision == "main" else [revision]
        return (commit[0], commits[commit[0]]) if commit and commit[0] in commits else None


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs(content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    return {"sha256": digest, "oid": digest, "size": len(content), "pointerSize": 130}


class Handler(BaseHTTPRequestHandler):
    """What both servers have in common."""

    hub: Hub
    place = "hub"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0]).removeprefix("/")
        headers = self.headers
        self.hub.requests.append(Seen(self.place, self.command, path, headers.get("Range", ""),
                                      headers.get("Authorization", "")))  # fmt: skip
        if self.hub.faults.down:
            self.connection.close()
            return
        with contextlib.suppress(ConnectionError):
            self.respond(path)

    def respond(self, path: str) -> None:
        raise NotImplementedError

    def fault(self, path: str) -> bool:
        """Answer with the status that is set for a path, if one is."""
        faults = self.hub.faults
        for ending, answers in faults.statuses.items():
            if path.endswith(ending) and answers:
                self.refuse(*answers.pop(0))
                return True
        for ending, answer in faults.always.items():
            if path.endswith(ending):
                self.refuse(*answer)
                return True
        return False

    def refuse(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_object(self, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text)

    def send_content(self, file: str, content: bytes, headers: Mapping[str, str]) -> None:
        faults = self.hub.faults
        with self.hub.lock:
            if faults.wrong.get(file, 0):
                faults.wrong[file] -= 1
                changed = bytearray(content)
                changed[faults.wrong_at] ^= 1
                content = bytes(changed)
            cuts = faults.cut_after.get(file)
            cut = cuts.pop(0) if cuts else faults.always_cut_after.get(file)
        asked = "" if faults.ignore_ranges else self.headers.get("Range", "")
        start, _, last = asked[6:].partition("-")
        start, end = int(start or 0), int(last or len(content) - 1) + 1
        self.send_response(206 if asked else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command != "GET":
            return
        body = content[start:end] if cut is None else content[start:end][:cut]
        step = max(1, faults.bytes_per_s // 20) if faults.bytes_per_s else max(1, len(body))
        for at in range(0, len(body), step):
            self.wfile.write(body[at : at + step])
            if faults.bytes_per_s:
                time.sleep(step / faults.bytes_per_s)  # slow, as told; nothing waits for it to end
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class HubHandler(Handler):
    """The hub itself: listings, small files, redirects to large ones."""

    def respond(self, path: str) -> None:
        if self.fault(path):
            return
        if self.hub.faults.token and self.headers.get("Authorization") != (
            f"Bearer {self.hub.faults.token}"
        ):
            self.refuse(401, {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("api/models/"):
            self.describe(path.removeprefix("api/models/").split("/"))
        else:
            self.resolve(path)

    def describe(self, words: list[str]) -> None:
        name = "/".join(words[:2])
        if name not in self.hub.history:
            self.refuse(404, {"X-Error-Code": "RepoNotFound"})
            return
        found = self.hub.files(name, "/".join(words[3:]) or "main")
        if found is None:
            self.refuse(404, {"X-Error-Code": "RevisionNotFound"})
            return
        commit, files = found
        if words[2:3] == ["tree"]:
            self.send_object([
                {"type": "file", "path": file, "size": len(content), "oid": blob_id(content),
                 **({"lfs": lfs(content)} if file.endswith(LARGE) else {})}
                for file, content in files.items()
            ])  # fmt: skip
            return
        siblings: list[dict[str, object]] = [{"rfilename": file} for file in files]
        if not self.hub.faults.without_sizes:
            siblings = [
                {"rfilename": file, "size": len(content), "blobId": blob_id(content),
                 **({"lfs": lfs(content)} if file.endswith(LARGE) else {})}
                for file, content in files.items()
            ]  # fmt: skip
        self.send_object({
            "id": name, "sha": commit, "siblings": siblings,
            "gated": "manual" if name in self.hub.gated else False,
            "cardData": self.hub.cards.get(name, {}),
        })  # fmt: skip

    def resolve(self, path: str) -> None:
        name, _, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        found = self.hub.files(name, revision)
        if found is None or file not in found[1]:
            self.refuse(404, {"X-Error-Code": "EntryNotFound"})
            return
        let_in = self.hub.gated.get(name)
        if let_in is not None and self.headers.get("Authorization") != f"Bearer {let_in}":
            known = bool(self.headers.get("Authorization"))
            self.refuse(403 if known else 401, {"X-Error-Code": "GatedRepo"})
            return
        commit, files = found
        content = files[file]
        if not file.endswith(LARGE):
            self.send_content(file, content, {"ETag": f'"{blob_id(content)}"',
                                              "X-Repo-Commit": commit})  # fmt: skip
            return
        self.send_response(302)
        self.send_header("Location", f"{self.hub.cdn_address}/{name}/{commit}/{file}")
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Linked-ETag", f'"{lfs(content)["sha256"]}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


class CdnHandler(Handler):
    """Where large files lie."""

    place = "cdn"

    def respond(self, path: str) -> None:
        owner, name, commit, file = path.split("/", 3)
        content = self.hub.history[f"{owner}/{name}"][commit][file]
        if not self.fault(f"cdn:{file}"):
            self.send_content(file, content, {"ETag": '"cdn"'})


@contextlib.contextmanager
def serving(
    repositories: Mapping[str, Files], cards: Mapping[str, object] | None = None
) -> Iterator[Hub]:
    """Serve repositories, each a map of file names to contents; give the hub."""
    hub = Hub(repositories, cards or {})
    servers = []
    for kind in (HubHandler, CdnHandler):
        handler = type("Bound", (kind,), {"hub": hub})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
    hub.address, hub.cdn_address = (f"http://127.0.0.1:{one.server_port}" for one in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
