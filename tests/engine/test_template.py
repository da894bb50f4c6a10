import pytest

from converters.metadata.chat_template import known_template
from localseek.errors import ModelError
from localseek.options import Message
from localseek.text.template import ChatTemplate

HELLO = (Message("user", "Hello"),)
R1 = "{{ bos_token }}{% for m in messages %}<U>{{ m['content'] }}{% endfor %}{{ '<A><think>\\n' }}"
SWITCH = "{{ messages[0].content }}<A>{% if thinking %}<think>{% else %}</think>{% endif %}"


def render(source: str, messages=HELLO, think=None):
    return ChatTemplate(source, "<bos>", "<eos>").render(messages, think)


def test_a_template_that_opens_think_says_so():
    prompt = render(R1)
    assert prompt.text == "<bos><U>Hello<A><think>\n"
    assert prompt.opened


def test_no_thinking_closes_the_block_that_a_template_always_opens():
    prompt = render(R1, think=False)
    assert prompt.text == "<bos><U>Hello<A><think>\n\n</think>\n\n"
    assert not prompt.opened


def test_the_templates_own_switch_is_set():
    assert render(SWITCH, think=True).opened
    assert render(SWITCH, think=False).text == "Hello<A></think>"
    assert render(SWITCH).opened, "thinking is the default where there is a switch"


# How the released templates end a prompt, and what `think` None, True, False must make of it.
STRIPS = "{{ messages[0].content.split('</think>')[-1] }}"
BLOCK = "<think>\n\n</think>\n\n"
R1_FIRST = STRIPS + "<A>"  # R1 at first, R1-0528 and its distillation: nothing opens <think>
V31 = STRIPS + "<A>{{ '<think>' if thinking is defined and thinking else '</think>' }}"
V32 = STRIPS + "<A><think>{{ '' if thinking else '</think>' }}"
QWEN3 = (
    STRIPS + "<A>{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
GRANITE = "{% if thinking %}Write <think> first. {% endif %}Hello<A>"


@pytest.mark.parametrize(
    ("source", "unset", "on", "off"),
    [
        (R1, "<think>\n", "<think>\n", BLOCK),
        (R1_FIRST, "", "<think>\n", BLOCK),
        (V31, "<think>", "<think>", "</think>"),
        (V32, "<think>", "<think>", "<think></think>"),
        (known_template("deepseek4", "V4"), "<think>", "<think>", "</think>"),
        (QWEN3, "", "", BLOCK),
        (GRANITE, "", "", ""),
        ("Hello<A>", "", "", ""),  # V3 and all before it do not reason
        ("</mm:think>Hello<A>", "", "", ""),  # other tags than those that the runtime knows
    ],
)
def test_thinking_is_switched_as_each_template_wants_it(source, unset, on, off):
    for think, end in ((None, unset), (True, on), (False, off)):
        prompt = render(source, think=think)
        assert prompt.text.rpartition("<A>")[2].rpartition("<｜Assistant｜>")[2] == end
        assert prompt.opened == (end.strip() == "<think>")


@pytest.mark.parametrize(
    ("source", "closing"),
    [
        (R1, "\n</think>\n\n"),
        (R1_FIRST, "\n</think>\n\n"),
        (V31, "</think>"),
        (V32, "</think>"),
        (known_template("deepseek32", "V3.2"), "</think>"),
        (QWEN3, "\n</think>\n\n"),
        ("Hello<A>", "\n</think>\n\n"),
        ("{{ raise_exception('never') }}", "\n</think>\n\n"),
    ],
)
def test_a_reasoning_is_closed_as_the_template_shows_it(source, closing):
    assert ChatTemplate(source, "", "").closing == closing


def test_v4_reasons_as_hard_as_it_is_told():
    told = ChatTemplate(known_template("deepseek4", "V4-Flash"), "<B>", "<E>")
    assert told.takes_effort
    assert told.render(HELLO, effort="max").text.startswith("<B>Reasoning Effort: Absolute maximum")
    assert told.render(HELLO, effort="high").text.startswith("<B><｜User｜>")
    assert told.render(HELLO, think=False, effort="max").text.startswith("<B><｜User｜>")
    later = ChatTemplate(known_template("deepseek4", "DeepSeek-V4-Flash-0731"), "<B>", "<E>")
    assert "Absolute maximum" in later.render(HELLO, effort="high").text
    assert "Beyond maximum — exhaustive" in later.render(HELLO, effort="max").text
    assert not ChatTemplate(known_template("deepseek32", "V3.2"), "", "").takes_effort


def test_an_earlier_answer_that_names_the_tag_is_not_cut():
    turns = (*HELLO, Message("assistant", "The tag `</think>` closes it."), Message("user", "ok"))
    text = render(known_template("deepseek32", "V3.2"), turns).text
    assert "</think>The tag `</think>` closes it.<｜end▁of▁sentence｜>" in text


def test_a_prompt_says_how_it_ends():
    opened, closed = render(R1), render(R1, think=False)
    assert (opened.opened, opened.closed, opened.space) == (True, False, False)
    assert (closed.opened, closed.closed) == (False, True)
    assert render("User: {{ messages[0].content }}\n\nAssistant:").space


def test_the_tag_that_marks_replies_for_training_is_passed_over():
    assert render("<A>{% generation %}{{ messages[0].content }}{% endgeneration %}.").text == (
        "<A>Hello."
    )


def test_blocks_are_trimmed_as_hugging_face_does():
    lines = ("{% for m in messages %}", "    {% if true %}", "{{ m.content }}", "    {% endif %}")
    source = "\n".join((*lines, "{% endfor %}"))
    assert render(source).text == "Hello\n"


def test_tojson_keeps_unicode_and_html_as_they_are():
    source = "{{ {'a': '<é>&'} | tojson }} {{ [1] | tojson(indent=2) }}"
    assert render(source).text == '{"a": "<é>&"} [\n  1\n]'


def test_loop_controls_and_dates_work():
    source = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    assert render(source + "{{ strftime_now('%Y')[:2] }}").text == "0120"


def test_a_template_that_refuses_its_input_gives_its_reason():
    with pytest.raises(ModelError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ messages[7].content.x }}",
        "{% set n = namespace(s='x' * 1000) %}{% for i in range(99999) %}{{ n.s }}{% endfor %}",
        "x" * 1_000_001,
        "{{ 'a' * 10**11 }}",
        "{{ 2 ** (10 ** 8) }}",
        "{% for a in range(9999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
def test_hostile_or_broken_templates_are_refused_in_one_line(source, monkeypatch):
    monkeypatch.setattr("localseek.text.template.MAX_SECONDS", 1.0)
    with pytest.raises(ModelError) as caught:
        render(source)
    assert "\n" not in str(caught.value)
