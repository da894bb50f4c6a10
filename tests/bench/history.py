"""Time of searches in a history of 10,000 messages, English and Chinese, and of writing them.

`python tests/bench/history.py`: a table of medians and the slowest of each search. Run by hand.
"""

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from localseek.store.history.history import History
from localseek.text.conversation import Reply

CONVERSATIONS, TURNS, RUNS = 500, 10, 20
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


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder, History(Path(folder) / "h.sqlite3") as history:
        each = fill(history)
        size = history.path.stat().st_size / 1e6
        print(f"{CONVERSATIONS * TURNS * 2:,} messages, {size:.0f} MB, {each * 1e3:.1f} ms each\n")
        print("| search | found | median ms | slowest ms |\n|---|---|---|---|")
        for text in SEARCHES:
            times = []
            for _ in range(RUNS):
                began = time.perf_counter()
                found = history.search(text)
                times.append((time.perf_counter() - began) * 1e3)
            print(f"| {text} | {len(found)} | {statistics.median(times):.1f} | {max(times):.1f} |")


if __name__ == "__main__":
    main()
