"""Time of searches in a history of 10,000 messages, English and Chinese, encrypted and not.

`python tests/bench/history.py`: a table of medians and the slowest of each search; how long it
takes to encrypt it, to open it, to delete; how fast saved sequences are sealed. Run by hand.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from localseek.store.history import cipher
from localseek.store.history.conversion import convert
from localseek.store.history.history import History
from localseek.store.history.vault import Vault
from localseek.store.sequences import SequenceStore
from localseek.system import paths
from localseek.text.conversation import Reply

CONVERSATIONS, TURNS, RUNS = 500, 10, 20
SEQUENCE_BYTES = 1 << 28
SEARCHES = ("w12", "w100ord21 w7", "nowhere", "北京", "上海今", "天", "%", "Question 77")
SIGNS = "北京上海今天天气很好我们去公园散步模型推理"


def fill(history: History) -> float:
    """Write the messages; give the seconds each took."""
    chance = random.Random(1)
    words = [f"w{number}ord{number * 7 % 97}" for number in range(5000)]
    began = time.perf_counter()
    for number in range(CONVERSATIONS):
        conversation, leaf = history.new(f"Question {number}", "nano"), None
        for turn in range(TURNS):
            prompt = " ".join(chance.choices(words, k=30))
            asked = history.add_prompt(conversation, leaf, prompt)
            leaf = history.begin_answer(conversation, asked, "nano")
            answer = " ".join(chance.choices(words, k=300))
            if turn % 3 == 0:
                answer += "".join(chance.choices(SIGNS, k=40))
            history.write_answer(leaf, Reply("thought " * 200, answer, "stop"))
    return (time.perf_counter() - began) / (CONVERSATIONS * TURNS * 2)


def searches(history: History) -> dict[str, tuple[int, float, float]]:
    """Give for each search how many places it found, the median and the slowest time in ms."""
    rows = {}
    for text in SEARCHES:
        times = []
        for _ in range(RUNS):
            began = time.perf_counter()
            found = history.search(text)
            times.append((time.perf_counter() - began) * 1e3)
        rows[text] = (len(found), statistics.median(times), max(times))
    return rows


def took(job: Callable[[], object]) -> float:
    """Give the seconds that something takes."""
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def sealing(folder: Path) -> None:
    """Print how fast a saved sequence is sealed and read again, beside one that is not sealed."""
    data = memoryview(os.urandom(SEQUENCE_BYTES))
    for key in (None, bytes(32)):
        store = SequenceStore(folder, key=key)
        paths: list[Path] = []
        written = took(lambda s=store, p=paths: p.append(s.write("m", [data])))
        with store.opened(paths[0]) as content:
            read = took(lambda c=content: bytes(c.first(c.size)))
        store.clear()
        speeds = (f"{SEQUENCE_BYTES / 1e6 / seconds:,.0f} MB/s" for seconds in (written, read))
        print(f"sequence, {'sealed' if key else 'plain'}: written {' · read '.join(speeds)}")


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "history.sqlite3"
        with History(path) as history:
            each = fill(history)
            plain = searches(history)
        size = path.stat().st_size / 1e6
        print(f"{CONVERSATIONS * TURNS * 2:,} messages, {size:.0f} MB, {each * 1e3:.1f} ms each")
        opened = took(lambda: History(path).close())
        vault = Vault(path)
        print(f"encrypted in {took(lambda: convert_in(vault, folder)):.2f} s")
        again = Vault(path)
        print(f"opened in {opened * 1e3:.1f} ms; the passphrase takes "
              f"{took(lambda: again.unlock('a passphrase')) * 1e3:.0f} ms, opening then "
              f"{took(lambda: again.open().close()) * 1e3:.1f} ms")  # fmt: skip
        with again.open() as history:
            sealed = searches(history)
            print(f"deleted in {took(lambda: history.delete([1])) * 1e3:.0f} ms")
        with tempfile.TemporaryDirectory(dir=paths.in_memory()) as memory:  # no disk's speed
            sealing(Path(memory))
        print("\n| search | found | plain ms | slowest | encrypted ms | slowest |")
        print("|---|---|---|---|---|---|")
        for text, (found, median, slowest) in plain.items():
            other = sealed[text]
            assert other[0] == found
            print(f"| {text} | {found} | {median:.1f} | {slowest:.1f} | {other[1]:.1f} "
                  f"| {other[2]:.1f} |")  # fmt: skip


def convert_in(vault: Vault, folder: Path) -> None:
    """Encrypt a history in a folder of its own."""
    key = cipher.derive("a passphrase", cipher.new_salt())
    convert(vault.path, None, key, folder / "sequences")


if __name__ == "__main__":
    main()
