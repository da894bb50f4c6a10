import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from fakes import gguf_file

from localseek import Engine

GONE_S = 30.0  # that a process may take to end on a machine that is busy


@pytest.fixture
def tiny(home: Path, fake_engine: None) -> str:
    """The name of a model that the fake engine answers for."""
    (home / "models").mkdir(exist_ok=True)
    gguf_file.write_dense(home / "models" / "tiny.gguf")
    return "tiny"


@pytest.fixture
def make(tiny: str) -> Iterator[Callable[..., Engine]]:
    """Make engines that are closed in the end, and leave no thread and no process."""
    threads, made = set(threading.enumerate()), []
    children = set(psutil.Process().children())  # what other tests share

    def made_of(**options: object) -> Engine:
        made.append(Engine(tiny, **options))
        return made[-1]

    yield made_of
    for engine in made:
        engine.close()
    assert {t for t in threading.enumerate() if t.name == "localseek"} <= threads
    assert set(psutil.Process().children()) <= children


@pytest.fixture
def engine(make: Callable[..., Engine]) -> Engine:
    return make(parallel=2)


@pytest.fixture
def single(make: Callable[..., Engine]) -> Engine:
    return make()


def gone(pid: int) -> bool:
    """Wait for the end of a process."""
    try:
        psutil.Process(pid).wait(GONE_S)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True
