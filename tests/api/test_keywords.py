import json
import os
from dataclasses import fields

import pytest

from localseek import (
    AsyncConversation,
    AsyncEngine,
    Conversation,
    Engine,
    Fixed,
    LoadOptions,
    Message,
    Request,
    Sampling,
    UsageError,
)
from localseek.api.keywords import load_options, request_of, with_options
from localseek.terminal import settings


def echoed(reply) -> dict:
    return json.loads(reply.answer)


def test_options_of_an_answer_are_named_as_on_the_command_line_and_reach_the_engine(engine):
    sent = echoed(
        engine.reply(
            "echo", system="Be brief.", temperature=0.5, top_k=40, max_tokens=7, seed=3,
            stop=("A", "B"), think=False, think_budget=99, logit_bias={12: -1.5, "a=b": False},
        )
    )["request"]  # fmt: skip
    assert [m["content"] for m in sent["messages"]] == ["Be brief.", "echo"]
    chosen = {name: value for name, value in sent["sampling"].items() if value not in (None, "")}
    assert chosen == {
        "temperature": 0.5, "top_k": 40, "seed": 3, "logit_bias": [[12, -1.5], ["a=b", None]],
    }  # fmt: skip
    assert (sent["max_tokens"], sent["stop"], sent["think"]) == (7, ["A", "B"], False)
    assert sent["think_budget"] == 99


def test_options_of_the_load_reach_the_engine(make, tmp_path):
    template = "{{ messages[0].content }}"
    engine = make(
        ctx=512, threads=2, mtp=2, parallel=3, gpu_layers=1, place={"blk.1": "CPU"},
        devices="none", cache_type="q8_0", mmap=False, chat_template=template,
        draft_model=tmp_path / "d.gguf", draft_memory=False,
    )  # fmt: skip
    load = echoed(engine.reply("echo"))["load"]
    assert (load["ctx"], load["threads"], load["mtp"], load["parallel"]) == (512, 2, 2, 3)
    assert load["draft_model"] == str(tmp_path / "d.gguf") and not load["draft_memory"]
    fixed = load["fixed"]
    assert (fixed["gpu_layers"], fixed["place"], fixed["devices"]) == (
        1, [["blk.1", "CPU"]], ["none"]
    )  # fmt: skip
    assert (fixed["cache_type"], fixed["mmap"], load["chat_template"]) == ("q8_0", False, template)


def test_every_option_that_there_is_can_be_given():
    answer = {one.name for one in (*fields(Sampling), *fields(Request))} - {"messages", "sampling"}
    assert with_options(Request(max_tokens=5), dict.fromkeys(answer)) == Request(max_tokens=5)
    load = {one.name for one in (*fields(LoadOptions), *fields(Fixed))} - {"model", "fixed"}
    assert load_options(dict.fromkeys(load)) == LoadOptions(draft_memory=True)
    assert load_options({"remote": "a:1,b:2", "remote_timeout_s": 5}).fixed.remote == ("a:1", "b:2")
    numbers = dict.fromkeys(settings.CHECKS, 1)
    assert with_options(Request(), numbers).sampling.dry_base == 1


def test_what_keywords_leave_out_is_taken_from_a_request():
    base = Request(sampling=Sampling(temperature=0.7, top_p=0.9), max_tokens=9)
    made = request_of("Hi", base, {"top_p": 0.5})
    assert made.messages == (Message("user", "Hi"),) and made.max_tokens == 9
    assert (made.sampling.temperature, made.sampling.top_p) == (0.7, 0.5)


@pytest.mark.parametrize("base", [5, 0, "", {}])
def test_a_request_of_another_kind_is_refused(base):
    with pytest.raises(UsageError, match="not a Request"):
        request_of("x", base, {})


@pytest.mark.parametrize("model", [None, 5, object()])
def test_a_model_of_another_kind_is_refused_before_anything_starts(model):
    for kind in (Engine, AsyncEngine):
        with pytest.raises(UsageError, match="neither a name nor a path"):
            kind(model)


def test_a_path_of_bytes_is_a_path(tiny, home):
    with Engine(os.fsencode(home / "models" / "tiny.gguf")) as engine:
        assert engine.reply("say fine").answer == "fine"


@pytest.mark.parametrize("prompts", ["abc", b"abc", {"role": "x"}, Message("user", "x"), 5, None])
def test_a_batch_of_no_prompts_is_refused_at_once(engine, prompts):
    for one in (engine, AsyncEngine.of(engine)):
        with pytest.raises(UsageError, match=r"not a list of prompts\. Write \[prompt\]"):
            one.batch(prompts)


def test_a_conversation_needs_an_engine_and_messages(engine):
    for kind in (Conversation, AsyncConversation):
        with pytest.raises(UsageError, match="The engine is None, not an"):
            kind(None)
    for messages in ("abc", 5):
        with pytest.raises(UsageError, match="not a list of messages"):
            Conversation(engine, messages=messages)


def test_a_prompt_is_a_text_or_messages():
    said = [{"role": "user", "content": "1"}, Message("assistant", "2"), Message("user", "3")]
    wanted = (Message("user", "1"), Message("assistant", "2"), Message("user", "3"))
    assert request_of(said, None, {}).messages == wanted
    with_system = request_of(said, None, {"system": "S"}).messages
    assert with_system == (Message("system", "S"), *wanted)


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ("x", {"temprature": 1}, "There is no option 'temprature'. Did you mean temperature?"),
        ("x", {"max_token": 1}, "Did you mean max_tokens?"),
        ("x", {"ctx": 1}, "ctx is no option here. It says how a model is loaded"),
        ("x", {"temperature": "hot"}, "temperature is 'hot', not a number from 0 to 100."),
        ("x", {"seed": -1}, "seed is -1, not a number from 0 to 4,294,967,295."),
        ("x", {"raw": 1}, "raw is 1, not a bool."),
        ("x", {"stop": ""}, "stop holds an empty string."),
        ("x", {"stop": ["a", ""]}, "stop holds an empty string."),
        ("x", {"stop": [5]}, "stop is neither a string nor a list of strings."),
        (b"x", {}, "neither a text nor a list of messages"),
        ("x", {"schema": "{"}, "schema is not JSON"),
        ("x", {"schema": object()}, "schema is not JSON"),
        ("x", {"schema": {"type": "nonsense"}}, "nonsense"),
        ("x", {"grammar": "root ::= ("}, "grammar"),
        ("x", {"schema": {}, "grammar": "start: /a/"}, "schema or grammar, not both"),
        (" ", {}, "prompt is not a string, or is empty."),
        (5, {}, "neither a text nor a list of messages"),
        ([], {}, "messages is not a list, or is empty."),
        ([{"role": "robot", "content": "x"}], {}, "'robot' is none of system, user, assistant"),
        ([Message("assistant", "x")], {}, "The last of messages is not the user's."),
    ],
)
def test_what_cannot_be_asked_is_one_line_that_says_why(prompt, options, words):
    with pytest.raises(UsageError) as caught:
        request_of(prompt, None, options)
    assert words.lower() in str(caught.value).lower() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"contxt": 1}, "Did you mean"),
        ({"temperature": 1}, "temperature is no option here. It says how to answer"),
        ({"ctx": -1}, "ctx is -1, not a number from 0 to 2,147,483,647."),
        ({"mtp": 9}, "mtp: '9' is not auto, off or a number from 1 to 4."),
        ({"remote": "nowhere"}, "remote: 'nowhere' is"),
        ({"remote": 5}, "remote: 5 is neither a text nor a list of texts."),
        ({"place": 5}, "place: 5 is neither a mapping nor pairs of REGEX and DEVICE."),
        ({"cache_type": "q9"}, "cache_type: 'q9' is none of "),
        ({"mmap": "yes"}, "mmap is 'yes', not a bool."),
        ({"draft_model": 5}, "draft_model: 5 is not a path."),
        ({"prompt_cache": True, "parallel": 2}, "prompt_cache saves one sequence at a time."),
    ],
)
def test_what_cannot_be_loaded_so_is_one_line_that_says_why(options, words):
    with pytest.raises(UsageError) as caught:
        load_options(options)
    assert words in str(caught.value) and "\n" not in str(caught.value)
