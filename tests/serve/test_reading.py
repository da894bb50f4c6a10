import asyncio
import json

import pytest
from starlette.requests import Request as HttpRequest

from localseek.options import GenerationOptions, LoadOptions, Message, Request
from localseek.serve import app
from localseek.serve.errors import ApiError
from localseek.serve.reading import Served, parse_object, read_chat, read_completion

SERVED = Served("nano", GenerationOptions(), thinks=True, takes_effort=True, created=0)
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def asked(**fields: object) -> Request:
    return read_chat({**HELLO, **fields}, SERVED).request


def test_every_option_of_openais_reaches_the_engine():
    request = asked(
        temperature=0.5, top_p=0.9, seed=7, presence_penalty=1, frequency_penalty=-1,
        max_tokens=5, max_completion_tokens=6, stop="END", logit_bias={"12": -100, "13": 2.5},
        user="u", metadata={}, store=False, top_k=3, n=1, tools=[], logprobs=False,
    )  # fmt: skip
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.5, 0.9, 7)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    assert (sampling.logit_bias, sampling.top_k) == (((12, -100.0), (13, 2.5)), 3)
    assert (request.max_tokens, request.stop) == (6, ("END",))
    assert request.messages == (Message("user", "hello"),)


def test_what_is_left_out_or_null_is_what_the_command_line_says():
    options = GenerationOptions(
        system="Be brief.", request=Request(max_tokens=9), load=LoadOptions()
    )  # fmt: skip
    served = Served("nano", options, True, True, 0)
    request = read_chat({**HELLO, "max_tokens": None, "tools": None}, served).request
    assert request.max_tokens == 9
    assert request.messages[0] == Message("system", "Be brief.")
    own = {"messages": [{"role": "developer", "content": "Be long."}, *HELLO["messages"]]}
    assert read_chat(own, served).request.messages[0] == Message("system", "Be long.")


def test_contents_in_parts_are_one_text():
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    body = {"messages": [{"role": "user", "content": parts}]}
    assert read_chat(body, SERVED).request.messages == (Message("user", "hello"),)


@pytest.mark.parametrize(
    ("effort", "think", "ours"),
    [("none", False, ""), ("low", None, ""), ("high", None, "high"), ("xhigh", None, "max")],
)
def test_reasoning_effort_is_ours_where_the_model_knows_it(effort, think, ours):
    request = asked(reasoning_effort=effort)
    assert (request.think, request.effort) == (think, ours)
    without = Served("nano", GenerationOptions(), True, False, 0)
    assert read_chat({**HELLO, "reasoning_effort": effort}, without).request.effort == ""


def test_the_switches_of_templates_are_taken():
    assert asked(chat_template_kwargs={"enable_thinking": False}).think is False
    assert asked(chat_template_kwargs={"thinking": True}).think is True


def test_an_answer_without_reasoning_is_held_unless_a_grammar_holds_it():
    without = {**HELLO, "reasoning_effort": "none"}
    assert read_chat(without, SERVED).held
    assert not read_chat({**without, "response_format": {"type": "json_object"}}, SERVED).held
    assert not read_chat(HELLO, SERVED).held


def test_a_schema_and_json_hold_the_answer():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(asked(response_format=wanted).sampling.schema) == schema
    any_object = asked(response_format={"type": "json_object"}).sampling
    assert json.loads(any_object.schema) == {"type": "object"}
    assert not asked(response_format={"type": "text"}).sampling.shaped


def test_a_completion_is_a_raw_prompt_of_16_tokens_at_most():
    found = read_completion({"prompt": "1 + 1 =", "temperature": 0}, SERVED)
    request = found.request
    assert (request.raw, request.max_tokens, found.chat) == (True, 16, False)
    assert request.messages == (Message("user", "1 + 1 ="),)
    assert read_completion({"prompt": ["a"], "max_tokens": 3}, SERVED).request.max_tokens == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"audio": {}}, "audio"),
        ({"temprature": 1}, "temprature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
        ({"seed": 2**32}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logit_bias": []}, "logit_bias"),
        ({"logit_bias": {"Sure": 1}}, "logit_bias"),
        ({"logit_bias": {"1": "x"}}, "logit_bias"),
        ({"grammar": "nonsense"}, "grammar"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}},
            "response_format",
        ),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"reasoning_effort": ["high"]}, "reasoning_effort"),
        ({"chat_template_kwargs": 1}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"thinking": "no"}}, "chat_template_kwargs.thinking"),
        ({"chat_template_kwargs": {"other": True}}, "chat_template_kwargs.other"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"what": True}}, "stream_options.what"),
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": [], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
            "messages[0].tool_calls",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(fields, param):
    with pytest.raises(ApiError) as caught:
        read_chat({**HELLO, **fields}, SERVED)
    assert (caught.value.status, caught.value.param) == (400, param)
    told = caught.value.to_object()["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert told["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": ""}, "prompt"), ({}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"), ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "suffix": "b"}, "suffix"), ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "logprobs": 1}, "logprobs"), ({"prompt": "a", "messages": []}, "messages"),
    ],
)  # fmt: skip
def test_a_completion_refuses_by_name_too(fields, param):
    with pytest.raises(ApiError) as caught:
        read_completion(fields, SERVED)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_another_model_is_not_found():
    with pytest.raises(ApiError) as caught:
        asked(model="gpt-4")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert asked(model="nano") == asked(model="default") == asked()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x", b"[]", b"5", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b"\xff\xfe",
        b'{"a": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000, b'{"a": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_a_body_that_is_not_sound_json_is_refused(content):
    with pytest.raises(ApiError) as caught:
        parse_object(content)
    assert caught.value.status == 400
    assert len(json.dumps(caught.value.to_object())) < 1000


async def test_a_body_that_never_ends_is_given_up(monkeypatch):
    async def receive():
        if not begun:
            begun.append(True)
            return {"type": "http.request", "body": b"{", "more_body": True}
        return await asyncio.Event().wait()

    begun: list[bool] = []
    monkeypatch.setattr(app, "BODY_S", 0.01)
    scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(ApiError, match="did not come within") as caught:
        await app.read_body(HttpRequest(scope, receive))
    assert caught.value.status == 408
