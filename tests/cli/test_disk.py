import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from disk_scan import Place, mark, talk_to_all
from fakes import gguf_file

from localseek import Engine
from localseek.events import Notice
from localseek.options import LoadOptions, Message, Request
from localseek.store.history.vault import Vault
from localseek.store.sequences import SequenceStore


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path / "place")
    (made.home / "models").mkdir(parents=True)
    gguf_file.write_dense(made.home / "models" / "tiny.gguf")
    before = os.umask(0)
    yield made
    os.umask(before)


def test_only_what_is_saved_is_on_the_disk_and_only_for_its_owner(place, command):
    talk_to_all(place, command, ("-m", "tiny"))
    found = place.found()
    assert {Path(name).name for name in found} <= {"history.sqlite3", "history.sqlite3-wal"}
    held = set().union(*found.values())
    assert held == {"saved", "saved-system", "chat", "chat-system"}
    assert [name for name in place.loose() if "models/" not in name] == []
    kept = (place.own / "out.jsonl").read_text()
    assert mark("batch") in kept, "the answer was marked too"


def test_once_it_is_encrypted_no_mark_is_anywhere(place, command, tmp_path):
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    place.environment["LOCALSEEK_PASSPHRASE_FILE"] = str(secret)

    def do(*words: str, stdin: str = "") -> str:
        done = subprocess.run(
            [*command, *words], input=stdin, env=place.environment, cwd=place.own,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout + done.stderr

    do("chat", "-q", "-m", "tiny", stdin=f"say {mark('before')}\n")
    assert "Encrypted: " in do("history", "encrypt")
    do("chat", "-q", "-m", "tiny", "-s", mark("system"), stdin=f"say {mark('after')}\n")
    assert place.found() == {}
    assert [name for name in place.loose() if "models/" not in name] == []
    listed = json.loads(do("history", "list", "--json"))
    assert [one["title"] for one in listed] == [f"say {mark('after')}", f"say {mark('before')}"]
    assert "horse" not in (place.home / "logs" / "engine.log").read_text()
    do("history", "decrypt")
    assert place.found().keys() == {"home/history/history.sqlite3"}


FAULT = """
import sys, threading
from localseek.engine.child.faults import keep_words_out_of_tracebacks
keep_words_out_of_tracebacks()
def fail(): raise {error}
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


@pytest.mark.parametrize(
    ("error", "shown"),
    [("ValueError('SECRET')", False), ("KeyError('SECRET')", False),
     ("MemoryError('no memory')", True), ("OSError(28, 'No space left')", True)],
)  # fmt: skip
def test_a_fault_of_the_engine_says_where_and_quotes_no_prompt(error, shown):
    done = subprocess.run(
        [sys.executable, "-c", FAULT.format(error=error)], capture_output=True, text=True,
        check=False, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 1 and "SECRET" not in done.stderr
    assert done.stderr.count("in fail") == 2
    assert done.stderr.count("it may quote a prompt") == (0 if shown else 2)


def test_beside_a_locked_history_the_engine_saves_nothing_whoever_asks_for_it(nano_gguf, home):
    vault = Vault()
    vault.encrypt("one")
    prompt = "What is 348 + 257? " + "I must know it before the shop closes tonight. " * 8
    request = Request((Message("user", prompt),), max_tokens=8)

    def answer(key: str) -> list[str]:
        options = LoadOptions(str(nano_gguf), threads=1, prompt_cache=True, sequence_key=key)
        with Engine.of(options) as engine:
            engine.load()
            events = list(engine.generate(request))
        return [event.text for event in events if isinstance(event, Notice)]

    assert answer("") == ["The prompt cache is not used: the history is locked."]
    assert SequenceStore().list() == []
    vault.unlock("one")
    assert answer(vault.sequence_key()) == []
    (saved,) = SequenceStore().list()
    assert saved.path.read_bytes().startswith(b"localseek sealed")
    assert answer(vault.sequence_key()) == []
    assert len(SequenceStore().list()) == 1, "it was put back, and found to hold all"
