"""Fixtures for all tests: a state folder of their own, and the command line with a fake engine."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine.margins import CLEAR, least_lead
from fakes import gguf_file

from converters import ConvertOptions, convert
from localseek import cli, nano
from localseek.commands.library import devices
from localseek.engine.llama import Model
from localseek.engine.process import client
from localseek.nano import prompts
from localseek.system.machine import Machine

# Children inherit an ignored SIGINT, as under nohup, and tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_ENGINE = client.program
OTHERS = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "LLAMA_CACHE")
FAKE_ENGINE = [sys.executable, str(Path(__file__).parent / "fakes" / "engine.py")]


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("LOCALSEEK_HOME", str(folder))
    monkeypatch.setenv("HOME", str(folder / "user"))  # other programs keep models there
    for name in OTHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OLLAMA_MODELS", str(folder / "user" / "ollama"))  # none of the system's
    monkeypatch.delenv("NO_COLOR", raising=False)
    return folder


@pytest.fixture(scope="session")
def nano_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model, converted once a session."""
    path = tmp_path_factory.mktemp("nano") / "nano-Q8_0.gguf"
    convert(nano.CHECKPOINT, path, ConvertOptions(type="Q8_0"))
    return path


@pytest.fixture
def real_engine(monkeypatch: pytest.MonkeyPatch, run_cli: "RunCli") -> "RunCli":
    """Run the command line in this process with the real engine."""
    monkeypatch.setattr(client, "program", REAL_ENGINE)
    return run_cli


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every engine be the fake one."""
    monkeypatch.setattr(client, "program", lambda: FAKE_ENGINE)


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


RunCli = Callable[..., Outcome]


@pytest.fixture
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], home: Path
) -> RunCli:
    """Run the command line in this process, the engine being the fake one, `tiny` its model."""
    monkeypatch.setattr(client, "program", lambda: FAKE_ENGINE)
    monkeypatch.setattr(devices, "machine_here", lambda: Machine((), 8 * 10**9, 16 * 10**9, 4))
    (home / "models").mkdir(exist_ok=True)
    gguf_file.write_dense(home / "models" / "tiny.gguf")

    def run(*words: str, stdin: bytes = b"", home_model: bool = True) -> Outcome:
        verb_needs_model = home_model and words[:1] in (("ask",), ("chat",), ("batch",))
        line = [*words, "-m", "tiny"] if verb_needs_model and "-m" not in words else [*words]
        monkeypatch.setattr(sys, "argv", ["localseek", *line])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        try:
            status = cli.main()
        except SystemExit as error:  # argparse's own --help
            status = int(error.code or 0)
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """The environment for a command line in a process of its own."""
    (home / "models").mkdir(exist_ok=True)
    gguf_file.write_dense(home / "models" / "tiny.gguf")
    root = Path(__file__).parents[1]
    return {**os.environ, "PYTHONPATH": str(root), "TERM": "xterm-256color"}


@pytest.fixture
def command() -> list[str]:
    """The command line in a process of its own, with the fake engine."""
    return [sys.executable, str(Path(__file__).parent / "fakes" / "run.py")]


@pytest.fixture(scope="module")
def clear(nano_gguf: Path) -> Iterator[Callable[..., str]]:
    """Give a question back once nano was seen to be sure of every token of its answer.

    With `begun`, of what follows this prompt.
    """
    model = Model(str(nano_gguf), load_mtp=False)

    def check(
        question: str, past: tuple[tuple[str, str], ...] = (), system: str = "", begun: str = ""
    ) -> str:
        lead = least_lead(model, model.tokenize(begun or prompts.prompt(question, past, system)))
        assert lead > CLEAR, f"{question[:40]}: a lead of {lead:.2f} only, take another question"
        return question

    yield check
    model.close()
