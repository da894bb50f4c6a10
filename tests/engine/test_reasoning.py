import random

import pytest

from localseek.text.reasoning import Splitter
from localseek.text.stopping import StopFilter


def split(text: str, opened: bool, cuts: list[int]) -> tuple[str, str]:
    splitter = Splitter(opened)
    edges = [0, *sorted(cuts), len(text)]
    found = []
    for start, end in zip(edges, edges[1:], strict=False):
        found += splitter.feed(text[start:end])
    found += splitter.finish()
    return tuple("".join(t for k, t in found if k == kind) for kind in ("reasoning", "answer"))


CASES = [
    ("a b\n</think>\n\nc d", True, ("a b", "c d")),
    ("<think>\na\n</think>\n\nb", False, ("a", "b")),
    ("\n<think>a</think>b", False, ("a", "b")),
    ("plain answer", False, ("", "plain answer")),
    ("<thinking is hard", False, ("", "<thinking is hard")),
    ("never closed", True, ("never closed", "")),
    ("a </thin", True, ("a </thin", "")),
    ("a </thin</think>b", True, ("a </thin", "b")),
    ("</think>\n\nb", True, ("", "b")),
    ("a</think>b</think>c<think>d", True, ("a", "b</think>c<think>d")),
    ("思考\n</think>\n\n答案 😀", True, ("思考", "答案 😀")),
    ("a\n\n  b \n\n</think>\n\n  c\n\nd\n", True, ("a\n\n  b", "c\n\nd\n")),
    ("", True, ("", "")),
]


@pytest.mark.parametrize(("text", "opened", "expected"), CASES)
def test_reasoning_and_answer_are_the_same_however_the_text_is_cut(text, opened, expected):
    assert split(text, opened, []) == expected
    assert split(text, opened, list(range(len(text)))) == expected
    rng = random.Random(text)
    for _ in range(200):
        cuts = [rng.randint(0, len(text)) for _ in range(rng.randint(0, 6))]
        assert split(text, opened, cuts) == expected


def test_reasoning_streams_before_it_is_closed():
    splitter = Splitter(opened=True)
    assert splitter.feed("one two") == [("reasoning", "one two")]
    assert splitter.feed(" three <") == [("reasoning", " three")]
    assert splitter.feed(" four") == [("reasoning", " < four")]


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one STOP two", ("STOP",), "one "),
        ("one two", ("STOP",), "one two"),
        ("aaab", ("aab",), "a"),
        ("x<|end", ("<|end|>",), "x<|end"),
        ("ab\n\ncd", ("\n\n", "c"), "ab"),
        ("anything", (), "anything"),
        ("anything", ("",), "anything"),
    ],
)
def test_stop_strings_are_found_across_cuts_and_never_shown(text, stops, expected):
    for size in range(1, len(text) + 1):
        stop = StopFilter(stops)
        shown = "".join(stop.feed(text[i : i + size]) for i in range(0, len(text), size))
        shown += "" if stop.stopped else stop.finish()
        assert shown == expected
