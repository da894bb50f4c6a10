"""Two hundred texts on which tokenizers are compared: languages, code, digits, spaces, signs.

Forty written ones, and mixtures of their pieces drawn with a fixed seed. `texts()` takes special
tokens to put into some of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

N_TEXTS = 200
_WRITTEN = (
    "", " ", "  ", "\t", "\n", "\r\n", "\n\n\n", " \t \n ", "Hello world", " Hello, World!  ",
    "It's what we'll do; they've GONE, WE'RE HERE, don't", "The quick brown fox jumps.",
    "深度求索就是好！", "你好，世界。今天天气怎么样？", "日本語のテキストとカタカナ",
    "한국어 문장입니다",
    "Ünïcödé àccénts façade naïve", "Цена: 1 234,56 ₽ — дорого", "مرحبا بالعالم", "नमस्ते दुनिया",
    "0 1 12 123 1234 12345 1234567890 3.14159 1e-6", "１２３ ٣٤٥ ½ Ⅳ ²", "2026-11-23T20:59:01Z",
    "🦙🚀👩‍👩‍👧‍👦🏳️‍🌈 ok✅", "def f(x):\n    return x ** 2  # square\n", "if (a<=b&&c!=d){e+=1;}",
    "SELECT * FROM t WHERE id = 'x';", "<div class=\"a\">&amp;</div>", "https://example.org/a?b=c#d",
    "a\u00a0b\u2003c\u3000d\u200be", "tabs\tand\t\ttabs", "trailing   ", "   leading",
    "x\r\ny\r\nz",
    "$\\frac{a}{b} = \\sum_{i=0}^{n} x_i$", "!!!???...,,,;;;:::", "“quoted” ‘text’ — «ça»…",
    "snake_case camelCase SCREAMING_CASE kebab-case", "ＡＢＣ（全角）！",
    "mixed中文and English混合123",
)  # fmt: skip
_JOINTS = ("", " ", "  ", "\n", "\n\n", "\t", "，", ", ", "'s ", " - ", "_", "1")


def texts(special: Sequence[str]) -> list[str]:
    """Return the texts, the same at every call with the same special tokens."""
    draw = random.Random(5)
    words = [word for text in _WRITTEN for word in text.split(" ") if word]
    found = [*_WRITTEN]
    while len(found) < N_TEXTS:
        parts = draw.choices([*words, *_WRITTEN], k=draw.randint(2, 9))
        if special and len(found) % 4 == 0:
            parts.insert(draw.randint(0, len(parts)), draw.choice(special))
        text = parts[0]
        for part in parts[1:]:
            text += draw.choice(_JOINTS) + part
        found.append(text)
    return found
