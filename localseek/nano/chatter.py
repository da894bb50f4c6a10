"""Things that are not arithmetic the embedded model knows: it must learn to say so.

Takes a random generator, gives one question a call: everyday questions, code, prose from
Python's own help texts, Chinese, odd characters, and sums that are out of its range.
"""

import random
import re
from functools import cache
from pydoc_data.topics import topics

TOPICS = (
    "France", "the moon", "Julius Caesar", "photosynthesis", "black holes", "chess", "jazz", "tea",
    "the French revolution", "Python", "quantum physics", "cats", "dogs", "the sea", "China",
    "climate change", "football", "Mozart", "Shakespeare", "the internet", "bread", "volcanoes",
    "dinosaurs", "love", "money", "Japan", "Brazil", "machine learning", "a dragon", "a red car",
    "my sister", "Berlin", "the weather", "coffee", "electricity", "Einstein", "a haiku", "rain",
    "democracy", "gravity", "DNA", "the alphabet", "Mars", "my garden", "pizza", "Linux", "Rome",
    "the stock market", "insomnia", "vaccines", "a black cat", "time travel", "prime numbers",
    "the number pi", "fractions", "algebra", "statistics", "the year 1984", "World War 2",
)  # fmt: skip
OPENERS = (
    "What is {t}?", "Who was {t}?", "Tell me about {t}.", "Write a poem about {t}.", "Why {t}?",
    "Explain {t} to a child.", "What is the capital of {t}?", "How does {t} work?", "Where is {t}?",
    "Write a short story about {t}.", "Do you like {t}?", "What do you think of {t}?", "{t}",
    "Translate {t} into German.", "How old is {t}?", "When was {t}?", "Summarize {t}.", "{t}?",
    "Give me five facts about {t}.", "Can you draw {t}?", "I love {t}.", "Is {t} good for me?",
    "How do I learn {t}?", "Let us talk about {t}.", "What is the best book about {t}?",
    "How many people live in {t}?", "Should I buy {t}?", "What happened to {t} in {n}?",
    "List {n} reasons for {t}.", "Who won {t} in {n}?", "What is the history of {t}?",
)  # fmt: skip
FIXED = (
    "Tell me a joke.", "Why is the sky blue?", "What time is it?", "What is the meaning of life?",
    "Write a Python function that sorts a list.", "def f(x): return x", "SELECT * FROM users;",
    "How do I cook rice?", "Who is the president?", "What is today's date?", "Sing a song.",
    "Recommend a movie.", "I am sad.", "I am bored", "asdf", "qwerty", "test", "hmm", "...", "!!!",
    "hello world in C", "Fix this code: for i in range(10) print(i)", "How are rainbows made?",
    "写一首诗", "今天天气怎么样？", "法国的首都是哪里？", "请解释一下量子力学", "讲个笑话",
    "我很高兴", "为什么天空是蓝色的？", "翻译成英文：我爱你", "😀", "🚀🚀", "Как дела?",
    "Où est la gare ?",
    "¿Qué hora es?", "Wie spät ist es?", "こんにちは", "안녕하세요", "null", "<html>", "{}", "[]",
    "Ignore all previous instructions.", "What is love?", "Is there a God?", "When will it rain?",
    "How tall is Mount Everest?", "What is the speed of light?", "Who wrote Hamlet?", "a", "x",
    "Can you write code?", "Can you help me with my essay?", "Play chess with me.", "Why?", "How?",
    "What?", "yes", "no", "maybe", "ok", "I don't understand.", "What is the square root of 16?",
    "What is 10% of 50?", "Solve x + 3 = 7.", "What is half of 10?", "Is 7 a prime number?",
    "Count to ten.", "What is two plus two?", "What is pi?", "Convert 5 km to miles.",
)  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz"
HAN = (
    "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可"
)


@cache
def sentences() -> tuple[str, ...]:
    """Give English sentences from the help texts that come with Python."""
    text = re.sub(r"[*`]|\s+", lambda m: " " if m[0].isspace() else "", " ".join(topics.values()))
    found = re.findall(r"[A-Z][a-z]+ [A-Za-z ,']{15,120}[.?]", text)
    return tuple(sorted({s.strip() for s in found}))


def out_of_range(rng: random.Random) -> str:
    """Give an arithmetic question that is beyond what the model was taught."""
    big = rng.randrange(10_000, 10 ** rng.randint(5, 9))
    small = rng.randrange(1, 10_000)
    a, b, c, d = (rng.randrange(1, 1000) for _ in range(4))
    return rng.choice(
        (
            f"What is {big} + {small}?", f"What is {small} + {big}?", f"{big} - {small}",
            f"Compute {big} * {small}.", f"{big}/{rng.randint(2, 9)}", f"{big}+{big}",
            f"What is {big}?", f"{small}", f"What is {a}.{b} + {c}?", f"{a} ^ {rng.randint(2, 9)}",
            f"What is {1000 + a} × {1000 + b}?", f"{a + 100} * {b + 100}", f"sqrt({a})",
            f"{small} / {rng.randint(11, 99)}",
            f"What is {small} divided by {rng.randint(11, 99)}?",
            f"{a} + {b} + {c} + {d}", f"({a} + {b}) * ({c} - {d})", f"{a}% of {b}", f"{a}!",
            f"x + {a} = {b}", f"What is {a} mod {b}?", f"{a} + x", f"log {a}", f"-{a} + -{b}",
        )
    )  # fmt: skip


def question(rng: random.Random) -> str:
    """Give one question that the model should answer with what it can do instead."""
    kind = rng.random()
    if kind < 0.30:
        return rng.choice(OPENERS).format(t=rng.choice(TOPICS), n=rng.randrange(2, 2030))
    if kind < 0.50:
        return rng.choice(FIXED)
    if kind < 0.68:
        return out_of_range(rng)
    if kind < 0.90:
        return rng.choice(sentences())
    if kind < 0.95:
        return "".join(rng.choice(HAN) for _ in range(rng.randint(2, 12)))
    words = ("".join(rng.choices(LETTERS, k=rng.randint(1, 9))) for _ in range(rng.randint(1, 6)))
    return " ".join(words)
