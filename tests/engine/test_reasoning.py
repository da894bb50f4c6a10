import random

import pytest

from localseek.events import AnswerDelta, AnswerWithdrawn, ReasoningDelta
from localseek.text.conversation import Reply
from localseek.text.reasoning import Splitter
from localseek.text.stopping import StopFilter

OPENED, CLOSED, ASSISTANT = (True,), (False, True), (False, False, True)


def split(text: str, prompt: tuple[bool, ...], cuts: list[int]) -> tuple[str, str]:
    splitter = Splitter(*prompt)
    edges = [0, *sorted(cuts), len(text)]
    found = []
    for start, end in zip(edges, edges[1:], strict=False):
        found += splitter.feed(text[start:end])
    reply = Reply()
    for kind, piece in [*found, *splitter.finish()]:
        events = {"reasoning": ReasoningDelta, "answer": AnswerDelta}
        reply = reply.after(events[kind](piece) if piece else AnswerWithdrawn())
    return reply.reasoning, reply.answer


CASES = [
    ("a b\n</think>\n\nc d", OPENED, ("a b", "c d")),
    ("<think>\na\n</think>\n\nb", (False,), ("a", "b")),
    ("\n<think>a</think>b", (False,), ("a", "b")),
    ("plain answer", (False,), ("", "plain answer")),
    ("<thinking is hard", (False,), ("", "<thinking is hard")),
    ("never closed", OPENED, ("never closed", "")),
    ("a </thin", OPENED, ("a </thin", "")),
    ("a </thin</think>b", OPENED, ("a </thin", "b")),
    ("</think>\n\nb", OPENED, ("", "b")),
    ("a</think>b</think>c<think>d", OPENED, ("a", "b</think>c<think>d")),
    ("思考\n</think>\n\n答案 😀", OPENED, ("思考", "答案 😀")),
    ("a\n\n  b \n\n</think>\n\n  c\n\nd\n", OPENED, ("a\n\n  b", "  c\n\nd\n")),
    ("", OPENED, ("", "")),
    # White space is the answer's own where nothing was reasoned, and after the breaks.
    (" Paris", (False,), ("", " Paris")),
    ("\n        if a == b:", (False,), ("", "\n        if a == b:")),
    ("    605", CLOSED, ("", "    605")),
    ("\n\n    605", CLOSED, ("", "    605")),
    ("a</think>\r\n\n    indented", OPENED, ("a", "    indented")),
    (" \n", (False,), ("", " \n")),
    # The space after `Assistant:` is the template's.
    (" Hello there", ASSISTANT, ("", "Hello there")),
    ("  Hello", ASSISTANT, ("", " Hello")),
    ("\n Hello", ASSISTANT, ("", "\n Hello")),
    # A second tag, or only the beginning of one.
    ("<think>\nOkay.\n</think>\n\n605", OPENED, ("Okay.", "605")),
    (" \n<think>a", OPENED, ("a", "")),
    ("<thinker> is a word</think>b", OPENED, ("<thinker> is a word", "b")),
    # Told not to reason, the model did it all the same.
    ("Let me add. 348+257=605\n</think>\n\n605", CLOSED, ("Let me add. 348+257=605", "605")),
    ("hidden reasoning...</think>response", CLOSED, ("hidden reasoning...", "response")),
    ("</think>\n\n605", CLOSED, ("", "605")),
    ("a</think>b</think>c", CLOSED, ("a", "b</think>c")),
    ("<think>a</think>b</think>c", CLOSED, ("a", "b</think>c")),
    ("The tag `</think>` closes it.", CLOSED, ("", "The tag `</think>` closes it.")),
    ('Write "</think>" or \'</think>\'.', CLOSED, ("", 'Write "</think>" or \'</think>\'.')),
    ("a </thin", CLOSED, ("", "a </thin")),
    ("no tag </think> here", (False,), ("", "no tag </think> here")),
]


@pytest.mark.parametrize(("text", "prompt", "expected"), CASES)
def test_reasoning_and_answer_are_the_same_however_the_text_is_cut(text, prompt, expected):
    assert split(text, prompt, []) == expected
    assert split(text, prompt, list(range(len(text)))) == expected
    rng = random.Random(text)
    for _ in range(200):
        cuts = [rng.randint(0, len(text)) for _ in range(rng.randint(0, 6))]
        assert split(text, prompt, cuts) == expected


def test_an_answer_without_reasoning_streams_at_once_though_a_tag_could_still_come():
    splitter = Splitter(opened=False, closed=True)
    assert splitter.feed("One two") == [("answer", "One two")]
    assert splitter.feed(" three </th") == [("answer", " three ")]
    assert splitter.feed("ing") == [("answer", "</thing")]


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
