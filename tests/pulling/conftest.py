"""Fixtures for downloads: a hub on loopback, and `pull` in this process or in one of its own."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import huggingface_hub
import pytest
from fakes import hub as fake_hub
from huggingface_hub import constants

from localseek.commands.library import pull_choice
from localseek.store.pulling import downloading
from localseek.system.machine import Machine, imagined

GiB = 2**30


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., fake_hub.Hub]]:
    """Start a hub with repositories, and make it the endpoint of this process."""
    with ExitStack() as stack:

        def start(repositories: Mapping[str, fake_hub.Files], **cards: object) -> fake_hub.Hub:
            served = stack.enter_context(fake_hub.serving(repositories, cards.get("cards")))
            template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(constants, "ENDPOINT", served.address)
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            return served

        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(downloading, "FIRST_WAIT_S", 0.01)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield start
        huggingface_hub.close_session()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Imagine a machine with so many bytes of free memory."""

    def imagine(ram: int) -> None:
        def here() -> Machine:
            return imagined((), ram, 4)

        monkeypatch.setattr(pull_choice, "machine_here", here)

    imagine(16 * GiB)
    return imagine


@pytest.fixture
def pull_command(environment: dict[str, str], tmp_path: Path) -> Callable[..., list[str]]:
    """Give the words and the environment of a pull in a process of its own."""

    def words(served: fake_hub.Hub, *given: str) -> dict[str, object]:
        return {
            "args": [sys.executable, "-m", "localseek", "pull", *given],
            "env": {**environment, "HF_ENDPOINT": served.address, "HF_HOME": str(tmp_path / "hf")},
            "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
        }  # fmt: skip

    return words
