import asyncio
import os
import sys
from pathlib import Path

import openai
import pydantic
import pytest

from .servers import TOKEN, running

QUESTIONS = ("348 + 257", "12 * 7", "62 * 17", "Calculate 7 - 9000", "12 + 30", "999 * 99")


@pytest.fixture(scope="module")
def address(nano_gguf, tmp_path_factory):
    """Where the embedded model is served."""
    home = tmp_path_factory.mktemp("openai-home")
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "LOCALSEEK_HOME": str(home)}
    words = ["-m", str(nano_gguf), "--parallel", "3", "--ctx", "4096", "--threads", "1"]
    with running([sys.executable, "-m", "localseek"], environment, *words) as server:
        yield server.address


@pytest.fixture
def client(address):
    with openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=0) as found:
        yield found


def ask(question: str) -> dict:
    message = {"role": "user", "content": question}
    return {"model": "default", "messages": [message], "temperature": 0}


def test_a_question_is_answered_with_its_reasoning(client, clear):
    found = client.chat.completions.create(**ask(clear("348 + 257")))
    message = found.choices[0].message
    assert message.content == "348 + 257 = 605"
    assert "ones: 8+7=15" in message.reasoning_content
    assert found.choices[0].finish_reason == "stop"
    assert found.model == client.models.list().data[0].id
    usage = found.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens


def test_a_stream_is_the_same_answer_in_pieces(client, clear):
    whole = client.chat.completions.create(**ask(clear("62 * 17")))
    pieces = list(
        client.chat.completions.create(
            **ask("62 * 17"), stream=True, stream_options={"include_usage": True}
        )
    )
    deltas = [piece.choices[0].delta for piece in pieces[:-1]]
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    reasoning = "".join(getattr(delta, "reasoning_content", "") for delta in deltas)
    assert reasoning == whole.choices[0].message.reasoning_content
    assert pieces[-2].choices[0].finish_reason == "stop"
    assert pieces[-1].usage.completion_tokens == whole.usage.completion_tokens
    again = client.chat.completions.create(**ask("62 * 17")).usage
    assert again.prompt_tokens_details.cached_tokens > 0


def test_limits_and_stop_texts_end_an_answer(client, clear):
    whole = client.chat.completions.create(**ask(clear("62 * 17"))).choices[0].message.content
    short = client.chat.completions.create(**ask("62 * 17"), max_completion_tokens=5)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 5)
    cut = client.chat.completions.create(**ask("62 * 17"), stop="=")
    assert "=" in whole and cut.choices[0].message.content == whole.partition("=")[0]


class Sum(pydantic.BaseModel):
    result: int


def test_an_answer_fits_its_schema(client):
    found = client.chat.completions.parse(**ask("12 + 30"), response_format=Sum, max_tokens=300)
    assert isinstance(found.choices[0].message.parsed, Sum)


def test_a_text_goes_on_without_a_template(client):
    found = client.completions.create(
        model="default", prompt="348 + 257 = 605\n12 + 30 =", temperature=0, max_tokens=8
    )
    assert found.object == "text_completion" and found.choices[0].text
    assert found.usage.completion_tokens <= 8
    stream = client.completions.create(
        model="default", prompt="348 + 257 = 605\n12 + 30 =", temperature=0, max_tokens=8,
        stream=True,
    )  # fmt: skip
    assert "".join(piece.choices[0].text for piece in stream) == found.choices[0].text


def test_mistakes_are_the_clients_own_exceptions(client, address):
    for fields, param in (({"n": 2}, "n"), ({"logit_bias": {"999999999": 1}}, None)):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**ask("1 + 1"), **fields)
        assert caught.value.param == param and caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="tokens"):
        client.chat.completions.create(**ask("word " * 5000))
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**ask("1 + 1"), "model": "gpt-4"})
    stranger = openai.OpenAI(base_url=address, api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


async def test_several_clients_get_each_their_own_answer(address, client, clear):
    wanted = [client.chat.completions.create(**ask(clear(question))) for question in QUESTIONS]

    async def one(question: str) -> str:
        async with openai.AsyncOpenAI(base_url=address, api_key=TOKEN, max_retries=0) as own:
            stream = await own.chat.completions.create(**ask(question), stream=True)
            return "".join([piece.choices[0].delta.content or "" async for piece in stream])

    found = await asyncio.gather(*(one(question) for question in QUESTIONS))
    assert found == [one.choices[0].message.content for one in wanted]


def test_a_prompt_longer_than_the_context_has_the_code_that_programs_look_for(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ask("12 + 30 " * 4000))
    assert caught.value.code == "context_length_exceeded"
    assert "4,096" in caught.value.message
