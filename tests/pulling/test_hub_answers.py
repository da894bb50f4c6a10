import gzip
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from fakes import hub
from huggingface_hub import constants

from localseek.errors import LocalseekError
from localseek.store.hub import answers
from localseek.store.hub.asking import look_up

FILE = {"rfilename": "a.gguf", "size": 3, "blobId": "ab", "lfs": {"sha256": "c" * 64}}
GOOD = {"id": "a/b", "sha": hub.COMMIT, "siblings": [FILE]}


@contextmanager
def answering(monkeypatch, *chunks, status=200, headers=(), forever=False):
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            try:
                for chunk in chunks:
                    self.wfile.write(chunk)
                while forever:
                    self.wfile.write(chunks[-1])
                    sent.append(len(chunks[-1]))
            except OSError:
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    try:
        yield sent
    finally:
        huggingface_hub.close_session()
        server.shutdown()
        server.server_close()


def with_file(**changes):
    return {**GOOD, "siblings": [{**FILE, **changes}]}


def test_a_hubs_answer_is_taken_whole(monkeypatch):
    with answering(monkeypatch, json.dumps(GOOD).encode()):
        found = look_up("a/b", "main")
    assert found.commit == hub.COMMIT and not found.gated
    assert [(f.name, f.size_bytes, f.sha256) for f in found.files] == [("a.gguf", 3, "c" * 64)]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (with_file(size=1.5), "the size of a.gguf is not a number of bytes"),
        (with_file(size="12"), "the size of a.gguf is not a number of bytes"),
        (with_file(size=True), "the size of a.gguf is not a number of bytes"),
        (with_file(size=-1), "the size of a.gguf is not a number of bytes"),
        (with_file(size=2**53), "the size of a.gguf is not a number of bytes"),
        (with_file(lfs={"sha256": 5}), "the checksum of a.gguf is none"),
        (with_file(lfs=[1]), "what it says of a.gguf is not readable"),
        (with_file(rfilename=None), "it lists a file without a name"),
        ({**GOOD, "siblings": {"x": 1}}, "it lists no files"),
        ({**GOOD, "siblings": ["a.gguf"]}, "it lists a file without a name"),
        ({**GOOD, "sha": 5}, "it names no commit"),
        ({**GOOD, "sha": "../../x"}, "it names no commit"),
        ({}, "it names no commit"),
        ([GOOD], "it describes no repository"),
        (None, "it describes no repository"),
        (b"<html>", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"\xff\xfe\x00", "it is not JSON"),
    ],
)
def test_what_is_not_a_hubs_answer_is_said_in_one_sentence(monkeypatch, answer, why):
    text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    with answering(monkeypatch, text), pytest.raises(LocalseekError) as caught:
        look_up("a/b", "main")
    assert f"is not a hub's answer: {why}." in caught.value.message
    assert "HF_ENDPOINT" in caught.value.hint


@pytest.mark.parametrize("packed", [False, True])
def test_an_endless_answer_is_left_at_the_limit(monkeypatch, packed):
    monkeypatch.setattr(answers, "MOST_BYTES", 1 << 20)
    chunk = gzip.compress(b" " * (4 << 20)) if packed else b" " * 65536
    headers = [("Content-Encoding", "gzip")] if packed else []
    with answering(monkeypatch, chunk, headers=headers, forever=not packed) as sent:
        with pytest.raises(LocalseekError, match="longer than 1 MiB"):
            look_up("a/b", "main")
        assert sum(sent) < 32 << 20  # what sockets hold, and little more


def test_a_refusal_without_an_end_is_told_as_any_other(monkeypatch):
    headers = [("X-Error-Code", "RepoNotFound")]
    refusing = answering(monkeypatch, b"x" * 65536, status=404, headers=headers, forever=True)
    with refusing, pytest.raises(LocalseekError, match="There is no repository a/b"):
        look_up("a/b", "main")


def test_a_listing_that_goes_on_elsewhere_is_not_followed(monkeypatch):
    headers = [("Link", '<http://127.0.0.2:9/api/models/a/b/tree/x>; rel="next"')]
    listing = answering(monkeypatch, b"[]", headers=headers)
    with listing, pytest.raises(LocalseekError, match="goes on at another address"):
        answers.tree("a/b", hub.COMMIT)


def test_a_licence_cannot_forge_a_line_or_drive_a_terminal(serve, run_cli):
    card = {"license": "mit\nlocalseek: all is well\x1b[31m\u202e", "license_link": "x\x1b]0;y\x07"}
    serve({"a/b": {"m.gguf": b"GGUF"}}, cards={"a/b": card})
    done = run_cli("pull", "a/b", "--dry-run")
    assert done.status == 0
    lines = [line for line in done.err.splitlines() if line.startswith("Licence: ")]
    assert len(lines) == 1 and lines[0].startswith("Licence: mit localseek: all is well")
    assert lines[0].isprintable() and "\nlocalseek: all" not in done.err


def test_an_absurdly_long_name_is_cut_in_the_error(serve, run_cli):
    serve({"a/b": {"x" * 5000 + ".gguf": b"GGUF"}})
    done = run_cli("pull", "a/b")
    assert done.status == 1 and "too long for a disk" in done.err
    assert len(done.err) < 400


def test_a_listing_of_thousands_of_models_is_judged_by_size_at_once(serve, run_cli, machine):
    files = {f"m{n:04}-Q4_K_M.gguf": b"GGUF" for n in range(2000)}
    served = serve({"a/b": files})
    done = run_cli("pull", "a/b:Q4_K_M")
    assert done.status == 2 and "in memory here, by size alone" in done.err
    assert served.downloads() == []  # no head was read, and none planned 2,000 times
    assert len(done.err.splitlines()[-1]) < 400
