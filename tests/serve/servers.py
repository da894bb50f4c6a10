"""A `localseek serve` in a process of its own, and how tests talk to it."""

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

TOKEN = "a-token"
ASK = "/v1/chat/completions"


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    address: str
    client: httpx.Client

    def ask(self, prompt: str, **fields: object) -> httpx.Response:
        return self.client.post(ASK, json=body(prompt, **fields))


def body(prompt: str, **fields: object) -> dict[str, object]:
    return {"model": "default", "messages": [{"role": "user", "content": prompt}], **fields}


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], *words: str) -> Iterator[Server]:
    line = [*command, "serve", "--port", "0", "--json", *words]
    process = subprocess.Popen(
        line, env={**environment, "LOCALSEEK_TOKEN": TOKEN}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        address = json.loads(process.stdout.readline())["address"]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        base = address.removesuffix("/v1")
        with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
            yield Server(process, address, client)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()


def texts(response: httpx.Response) -> list[dict]:
    """Give the objects of a stream."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]
