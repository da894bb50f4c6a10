"""The routes: models, chat completions, completions, as OpenAI has them.

Takes the served model, a dispatcher and the guard's settings, gives an ASGI app. A client that goes
away cancels its request. Knows nothing about sockets and signals; writes no log.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from localseek.errors import LocalseekError
from localseek.events import (
    AnswerDelta,
    AnswerWithdrawn,
    Event,
    Failed,
    Finished,
    ReasoningDelta,
)
from localseek.serve.dispatch import Busy, Closing, Dispatcher
from localseek.serve.errors import ApiError, of_failure
from localseek.serve.guards import Guard, error_response
from localseek.serve.reading import Asked, Served, parse_object, read_chat, read_completion
from localseek.serve.writing import Answer, model_object, sse, to_json
from localseek.text.answers import checked
from localseek.text.conversation import Reply

MAX_BODY = 16 * 2**20  # bytes
BODY_S = 30.0  # for all of them, which take milliseconds on one machine
CLIENT_GONE = 499  # nobody reads it
Result = TypeVar("Result")
Events = AsyncGenerator[Event, None]


def make_app(
    served: Served, dispatcher: Dispatcher, token: str, hosts: frozenset[str] | None
) -> ASGIApp:
    """Give the app behind its guard; see `Guard` for `hosts`."""
    service = Service(served, dispatcher)
    routes = [
        Route("/health", service.health),
        Route("/v1/models", service.models),
        Route("/v1/models/{name:path}", service.model),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/completions", service.completion, methods=["POST"]),
    ]
    handlers: dict[Any, Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
        HTTPException: _on_http, LocalseekError: _on_error, ClientDisconnect: _on_gone,
    }  # fmt: skip
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token, hosts)


async def _on_http(request: Request, error: HTTPException) -> Response:
    what = "There is no such path" if error.status_code == 404 else error.detail
    return error_response(ApiError(error.status_code, f"{what}: {request.method}."))


async def _on_error(_request: Request, error: LocalseekError) -> Response:
    if isinstance(error, Busy):
        error = ApiError(429, str(error), code="too_many_requests")
    elif isinstance(error, Closing):
        error = ApiError(503, str(error), code="shutting_down")
    return error_response(error if isinstance(error, ApiError) else ApiError(500, str(error)))


async def _on_gone(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=CLIENT_GONE)


class Service:
    """The endpoints of one served model."""

    def __init__(self, served: Served, dispatcher: Dispatcher) -> None:
        self._served, self._dispatcher = served, dispatcher

    async def health(self, _request: Request) -> Response:
        """Say that the server is there."""
        return _json({"status": "ok"})

    async def models(self, _request: Request) -> Response:
        """List the one model."""
        return _json({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """Describe the one model."""
        name = request.path_params["name"]
        if name != self._served.name:
            message = f"The model {name!r} is not served here."
            raise ApiError(404, message, "model", "model_not_found")
        return _json(self._model())

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        return await self._answer(request, read_chat, "chatcmpl-")

    async def completion(self, request: Request) -> Response:
        """Go on with a text."""
        return await self._answer(request, read_completion, "cmpl-")

    def _model(self) -> dict[str, Any]:
        return model_object(self._served.name, self._served.created)

    async def _answer(
        self, request: Request, read: Callable[[dict[str, Any], Served], Asked], prefix: str
    ) -> Response:
        body = await read_body(request)
        # On another thread: a large schema takes a while, and other clients stream meanwhile.
        asked = await asyncio.to_thread(lambda: read(parse_object(body), self._served))
        name, now = self._served.name, int(time.time())
        answer = Answer(prefix + secrets.token_hex(12), name, now, asked.chat, asked.usage)
        events = self._dispatcher.events(asked.request)
        if not asked.stream:
            reply = await unless_gone(request, collected(events))
            if misfit := await unfit(reply, asked):
                raise misfit
            return _json(answer.whole(reply))
        events = going_on(await unless_gone(request, begun(events)), events)
        events = whole_only(events) if asked.held else events
        return EventStream(streamed(answer, events, asked))


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")


async def read_body(request: Request) -> bytes:
    """Read a JSON body; raises ApiError when it is too long or of another type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "The Content-Type is not application/json.")
    too_long = ApiError(413, f"The body is longer than {MAX_BODY:,} bytes.", code="body_too_long")
    length = request.headers.get("content-length", "0")
    if len(length) > 15 or int(length) > MAX_BODY:  # the HTTP parser has seen that it is a number
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY:
                    raise too_long
    except TimeoutError as error:
        message = f"The body did not come within {BODY_S:.0f} seconds."
        raise ApiError(408, message, code="body_too_slow") from error
    return bytes(body)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Give the result of `work`, which is cancelled when the client goes away."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    """Wait until the client has gone; its body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def collected(events: Events) -> Reply:
    """Give the whole reply; raises ApiError if it failed."""
    reply, begun = Reply(), False
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Failed):
                raise of_failure(event, begun)
            reply, begun = reply.after(event), True
    return reply


async def unfit(reply: Reply, asked: Asked) -> ApiError | None:
    """Give the error of an answer that ended without the form that was asked for.

    One that was cut off says so by its finish_reason, as OpenAI's does.
    """
    if reply.finish_reason != "stop" or not asked.request.sampling.shaped:
        return None
    # On another thread: a check may take seconds, and other clients stream meanwhile.
    error = (await asyncio.to_thread(checked, reply, asked.request.sampling)).error
    return ApiError(500, error, "response_format", "unfit_answer") if error else None


async def begun(events: Events) -> Event:
    """Give the first event, by which the engine has accepted the request; raises ApiError."""
    try:
        event = await anext(events)
        if isinstance(event, Failed):
            raise of_failure(event, begun=False)
    except BaseException:  # the client has gone, too
        await events.aclose()
        raise
    return event


async def going_on(first: Event, events: Events) -> Events:
    """Give a stream of events whole again."""
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


async def whole_only(events: Events) -> Events:
    """Hold back the texts to the end, since none that was sent can be taken back."""
    reply = Reply()
    async with aclosing(events):
        async for event in events:
            reply = reply.after(event)
            if isinstance(event, Finished):
                yield ReasoningDelta(reply.reasoning)
                yield AnswerDelta(reply.answer)
            if isinstance(event, Finished | Failed):
                yield event


async def streamed(answer: Answer, events: Events, asked: Asked) -> AsyncGenerator[bytes, None]:
    """Give an answer piece by piece; a failure on the way is the last piece."""
    reply = Reply()
    async with aclosing(events):
        yield answer.begin()
        async for event in events:
            reply = reply.after(event)
            if misfit := await unfit(reply, asked):
                yield sse(misfit.to_object())
                return
            if isinstance(event, Failed):
                yield sse(of_failure(event, begun=True).to_object())
                return
            if isinstance(event, AnswerWithdrawn):
                # What was sent can't be taken back, and a wrong answer must not end as a right one.
                message = "The model ended a reasoning that it had not begun: ask unstreamed."
                yield sse(ApiError(500, message, code="answer_withdrawn").to_object())
                return
            yield _piece(answer, event)


def _piece(answer: Answer, event: Event) -> bytes:
    if isinstance(event, ReasoningDelta):
        return answer.reasoning(event.text) if event.text else b""
    if isinstance(event, AnswerDelta):
        return answer.text(event.text) if event.text else b""
    return answer.end(event.reason, event.stats) if isinstance(event, Finished) else b""


class EventStream(StreamingResponse):
    """A response of server-sent events, whose source is closed whatever becomes of the client."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        super().__init__(_filled(pieces), headers={"Cache-Control": "no-cache"})
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces."""
        async with aclosing(self._pieces):
            await super().__call__(scope, receive, send)


async def _filled(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        if piece:
            yield piece
