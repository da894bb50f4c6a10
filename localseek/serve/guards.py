"""Who may ask: programs on this machine that know the token, and no web page.

An ASGI layer around the app, which sees the headers before a body is read. A page in a browser can
send requests to this machine: a foreign `Host` (DNS rebinding) or `Origin` is refused, and there
are no CORS headers. Knows nothing about what is asked.
"""

import re
import secrets

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from localseek.serve.errors import ApiError
from localseek.serve.writing import to_json

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")
OPEN_PATHS = ("/health",)  # without the token


def error_response(error: ApiError) -> Response:
    """Give OpenAI's error as a response."""
    headers = {"Retry-After": "1"} if error.status in (429, 503) else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = to_json(error.to_object())
    return Response(body, error.status, headers, media_type="application/json")


def hosts_of(address: str, port: int) -> frozenset[str]:
    """Give the `Host` headers of a server at `address`, which is as URLs have it."""
    names = {*LOOPBACK, address}
    return frozenset(f"{name}:{port}" for name in names) | (names if port == 80 else frozenset())


class Guard:
    """Refuses what comes from elsewhere; `hosts` None: a Unix socket, which no browser reaches."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str] | None) -> None:
        self._app, self._hosts = app, hosts
        self._wanted = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with an error, or let the app answer."""
        if scope["type"] != "http":
            return
        try:
            self._check(scope)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        named: dict[bytes, list[str]] = {b"host": [], b"origin": [], b"authorization": []}
        for name, value in scope["headers"]:
            if name in named:
                named[name].append(value.decode("latin-1"))
        hosts, origins = named[b"host"], named[b"origin"]
        if self._hosts is not None and [host.lower() in self._hosts for host in hosts] != [True]:
            raise ApiError(403, "The Host header is not this server's.", code="wrong_host")
        if not all(ORIGIN.fullmatch(origin.lower()) for origin in origins):
            raise ApiError(403, "Web pages may not ask this server.", code="wrong_origin")
        if scope["path"] not in OPEN_PATHS and not self._knows(named[b"authorization"]):
            message = "The token is missing or wrong: Authorization: Bearer TOKEN."
            raise ApiError(401, message, code="invalid_api_key")

    def _knows(self, given: list[str]) -> bool:
        """Tell whether the token was given, in a time that does not depend on it."""
        kind, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        return secrets.compare_digest(token.strip().encode(), self._wanted) and (
            kind.lower() == "bearer"
        )
