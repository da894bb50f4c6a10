import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from fakes import gguf_file

from .servers import ASK, TOKEN, body, running, texts

DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server with a fake engine, for tests that leave it as it was."""
    home = tmp_path_factory.mktemp("serve-home")
    (home / "models").mkdir()
    gguf_file.write_dense(home / "models" / "tiny.gguf")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "LOCALSEEK_HOME": str(home)}
    command = [sys.executable, str(root / "tests" / "fakes" / "run.py")]
    with running(command, environment, "-m", "tiny", "--parallel", "2") as server:
        yield server
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        _, err = server.process.communicate(timeout=DEADLINE_S)
        # No traceback, no log, no prompt: only what the engine has to say.
        assert err.replace("The context is nearly full.\n", "") == ""
        assert server.process.returncode == 0


def test_notices_are_for_whoever_runs_the_server(shared):
    assert shared.ask("notice").json()["choices"][0]["message"]["content"] == "42"


def error_of(response: httpx.Response) -> dict:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_health_needs_no_token_and_everything_else_does(shared):
    with httpx.Client(base_url=shared.client.base_url) as anybody:
        assert anybody.get("/health").json() == {"status": "ok"}
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {TOKEN}"}):
            for path in ("/v1/models", "/v1/nothing"):
                response = anybody.get(path, headers=headers)
                assert response.status_code == 401
                assert error_of(response)["code"] == "invalid_api_key"
    assert shared.client.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert shared.client.get("/v1/models/tiny").json()["object"] == "model"
    assert error_of(shared.client.get("/v1/models/other"))["code"] == "model_not_found"


def test_web_pages_and_foreign_hosts_are_refused(shared):
    port = shared.client.base_url.port
    for headers, code in (
        ({"Host": "evil.example"}, "wrong_host"),
        ({"Host": f"evil.example:{port}"}, "wrong_host"),
        ({"Host": f"127.0.0.1:{port + 1}"}, "wrong_host"),
        ({"Origin": "https://evil.example"}, "wrong_origin"),
        ({"Origin": "http://localhost.evil.example"}, "wrong_origin"),
        ({"Origin": "null"}, "wrong_origin"),
    ):
        for path in ("/health", "/v1/models"):
            response = shared.client.get(path, headers=headers)
            assert (response.status_code, error_of(response)["code"]) == (403, code)
    for headers in ({"Host": f"localhost:{port}"}, {"Origin": "http://localhost:3000"}):
        response = shared.client.get("/v1/models", headers=headers)
        assert response.status_code == 200
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_only_json_of_a_sane_size_is_read(shared):
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        response = shared.client.post(ASK, content=b"{}", headers={"Content-Type": kind})
        assert response.status_code == 415 and error_of(response)
    large = b" " * (16 * 2**20 + 1)
    kind = {"Content-Type": "application/json"}
    assert shared.client.post(ASK, content=large, headers=kind).status_code == 413
    pieces = (b" " * 2**20 for _ in range(17))
    assert shared.client.post(ASK, content=pieces, headers=kind).status_code == 413
    for content in (b"[" * 100_000, b'{"temperature": NaN}', b"\xff"):
        response = shared.client.post(ASK, content=content, headers=kind)
        assert (response.status_code, error_of(response)["code"]) == (400, "invalid_json")
    assert error_of(shared.client.get(ASK)) and error_of(shared.client.get("/nothing"))


def test_broken_text_is_answered_all_the_same(shared):
    content = b'{"messages": [{"role": "user", "content": "say \\ud800"}]}'
    kind = {"Content-Type": "application/json"}
    response = shared.client.post(ASK, content=content, headers=kind)
    assert response.json()["choices"][0]["message"]["content"] == "?"


def test_an_answer_comes_whole_or_in_pieces_with_its_reasoning(shared):
    whole = shared.ask("anything").json()
    choice = whole["choices"][0]
    assert choice["message"]["content"] == "The answer is 605."
    assert choice["message"]["reasoning_content"] == "Let me think."
    assert choice["finish_reason"] == "stop"
    assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    assert (whole["usage"]["total_tokens"], whole["object"]) == (31, "chat.completion")
    response = shared.ask("anything", stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    *pieces, counts = texts(response)
    deltas = [piece["choices"][0]["delta"] for piece in pieces]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "The answer is 605."
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "Let me think."
    assert (counts["choices"], counts["usage"]["completion_tokens"]) == ([], 19)
    assert {piece["usage"] for piece in pieces} == {None}
    assert shared.ask("length").json()["choices"][0]["finish_reason"] == "length"


def test_an_answer_that_does_not_fit_its_schema_is_an_error_whole_and_in_pieces(shared):
    schema = {"type": "array", "uniqueItems": True}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert shared.ask("say [1,2]", response_format=wanted).status_code == 200
    response = shared.ask("say [1,1]", response_format=wanted)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (500, "unfit_answer")
    assert "non-unique" in error["message"]
    last = texts(shared.ask("say [1,1]", response_format=wanted, stream=True))[-1]
    assert last["error"]["code"] == "unfit_answer"


def test_what_the_model_takes_back_is_not_streamed_as_the_answer(shared):
    response = shared.ask("withdraw", stream=True, reasoning_effort="none")
    deltas = [piece["choices"][0]["delta"] for piece in texts(response)]
    assert "".join(delta.get("content", "") for delta in deltas) == "    4"
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "2 and 2"
    unforeseen = texts(shared.ask("withdraw", stream=True))
    assert unforeseen[-1]["error"]["code"] == "answer_withdrawn"


def test_the_engine_gets_what_the_client_asks(shared):
    fields = {"temperature": 0, "seed": 3, "stop": ["X"], "max_tokens": 7}
    answer = shared.ask("echo", **fields).json()["choices"][0]["message"]["content"]
    request = json.loads(answer)["request"]
    assert (request["sampling"]["seed"], request["stop"], request["max_tokens"]) == (3, ["X"], 7)
    completion = shared.client.post("/v1/completions", json={"prompt": "echo"}).json()
    sent = json.loads(completion["choices"][0]["text"])["request"]
    assert (sent["raw"], sent["max_tokens"]) == (True, 16)
    assert completion["object"] == "text_completion"
    pieces = texts(shared.client.post("/v1/completions", json={"prompt": "x", "stream": True}))
    text = "".join(piece["choices"][0]["text"] for piece in pieces)
    assert text == "Let me think.The answer is 605."


def test_what_the_engine_refuses_is_the_clients_mistake_and_what_fails_later_is_not(shared):
    for prompt, status, words in (("refuse", 400, "grammar"), ("fail", 500, "9,000 tokens")):
        response = shared.ask(prompt)
        assert response.status_code == status and words in error_of(response)["message"]
        pieces = texts(shared.ask(prompt, stream=True))  # the answer had begun
        assert words in pieces[-1]["error"]["message"]


def test_a_client_that_goes_away_cancels_its_request(shared):
    for _ in range(3):  # more than there are places
        with shared.client.stream("POST", ASK, json=body("forever", stream=True)) as response:
            assert next(response.iter_lines()).startswith("data: ")
    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            shared.client.post(ASK, json=body("forever"), timeout=0.3)
    assert shared.ask("say here").json()["choices"][0]["message"]["content"] == "here"


def test_requests_beyond_the_places_wait_and_all_are_answered(shared):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda n: shared.ask(f"say {n}").json(), range(24)))
    answers = [one["choices"][0]["message"]["content"] for one in found]
    assert answers == [str(number) for number in range(24)]


def test_too_many_waiting_requests_are_told_to_come_again(shared, tmp_path):
    payload = json.dumps(body(f"tail {tmp_path / 'begun'}")).encode()  # until it is cancelled
    port = shared.client.base_url.port
    head = f"POST {ASK} HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    sockets, said = [], b""
    try:
        for _ in range(2 + 64 + 8):  # each that is not refused stays, so one is in the end
            sockets.append(socket.create_connection(("127.0.0.1", port)))
            sockets[-1].sendall(head.encode() + payload)
            sockets[-1].settimeout(0.05 if len(sockets) <= 2 + 64 else 3.0)
            with contextlib.suppress(TimeoutError):
                while b"}}" not in said:
                    said += sockets[-1].recv(4096)
                break
    finally:
        for one in sockets:
            one.close()
    assert said.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1" in said.lower() and b"rate_limit_error" in said
    deadline = time.monotonic() + DEADLINE_S
    while (status := shared.ask("say here").status_code) == 429:  # until their ends are noticed
        assert time.monotonic() < deadline
    assert status == 200


def test_an_engine_that_dies_takes_its_requests_with_it_and_is_started_again(shared):
    response = shared.ask("die")
    assert (response.status_code, error_of(response)["code"]) == (500, "engine_died")
    pieces = texts(shared.ask("die", stream=True))
    assert pieces[-1]["error"]["type"] == "server_error"
    assert shared.ask("say here").json()["choices"][0]["message"]["content"] == "here"


def test_ctrl_c_lets_a_running_answer_end_and_begins_no_other(command, environment):
    with running(command, environment, "-m", "tiny", "--parallel", "1") as server:
        with (
            server.client.stream("POST", ASK, json=body("long", stream=True)) as response,
            concurrent.futures.ThreadPoolExecutor(1) as pool,
        ):
            lines = response.iter_lines()
            next(lines)
            waits = pool.submit(server.ask, "say late")
            while not waits.running():
                time.sleep(0.01)
            time.sleep(0.2)  # for the request to arrive; if it does not, it is refused as well
            server.process.send_signal(signal.SIGINT)
            rest = [line for line in lines if line]
            with contextlib.suppress(httpx.TransportError):  # it came when none was accepted
                assert waits.result().status_code == 503
        assert rest[-1] == "data: [DONE]"
        assert "line 3999" in rest[-3]
        out, err = server.process.communicate(timeout=DEADLINE_S)
        assert (server.process.returncode, out, err) == (0, "", "")


def test_a_second_ctrl_c_stops_at_once(command, environment):
    with running(command, environment, "-m", "tiny") as server:
        with server.client.stream("POST", ASK, json=body("forever", stream=True)) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGINT)
            with pytest.raises(httpx.ConnectError):
                while True:  # until the first one is heard
                    httpx.get(f"{server.client.base_url}/health", timeout=DEADLINE_S)
            server.process.send_signal(signal.SIGINT)
            with pytest.raises(httpx.TransportError):
                list(lines)
        _, err = server.process.communicate(timeout=DEADLINE_S)
        assert (server.process.returncode, err) == (130, "")


def test_a_unix_socket_is_its_owners_alone_and_gone_afterwards(command, environment, tmp_path):
    path = tmp_path / "seek.sock"
    line = [*command, "serve", "-m", "tiny", "--socket", str(path), "--token", TOKEN]
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # what a killed server leaves behind
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True)
    out = [process.stdout.readline() for _ in range(3)]
    assert out[0] == f"Serving tiny at {path}\n" and TOKEN in out[1]
    assert out[2].startswith(f"curl --unix-socket {path} ")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert (second.returncode, "Another server listens" in second.stderr) == (2, True)
    transport = httpx.HTTPTransport(uds=str(path))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(transport=transport, base_url="http://x", headers=headers) as client:
        found = client.post(ASK, json=body("say hello")).json()
    assert found["choices"][0]["message"]["content"] == "hello"
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 0
    process.stdout.close()
    assert not path.exists()


def test_address_and_a_new_token_are_printed(command, environment):
    line = [*command, "serve", "-m", "tiny", "--port", "0"]
    tokens = set()
    for _ in range(2):
        process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True)
        first, second, third = (process.stdout.readline().rstrip() for _ in range(3))
        address = first.removeprefix("Serving tiny at ")
        token = second.removeprefix("Token: ")
        assert third == f"OPENAI_BASE_URL={address} OPENAI_API_KEY={token}"
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{address}/models", headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        process.stdout.close()
        tokens.add(token)
    assert len(tokens) == 2 and min(map(len, tokens)) > 40


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "0.0.0.0"], "is not a loopback address"),
        (["--host", "::"], "is not a loopback address"),
        (["--host", "192.168.7.7"], "is not a loopback address"),
        (["--host", "example.org"], "is not an IP address"),
        (["--port", "70000"], "is not a port"),
        (["--port", "0", "--token", ""], "The token"),
        (["--port", "0", "--token", "a b"], "The token"),
        (["--socket", "/nowhere/x.sock"], "cannot be listened on"),
        (["--prompt-cache", "--parallel", "4"], "one sequence at a time"),
    ],
)
def test_a_server_listens_only_where_it_may(run_cli, words, says):
    done = run_cli("serve", "-m", "tiny", *words)
    assert done.status == 2 and says in done.err and done.err.count("\n") == 1
