"""What can go wrong with a client's request, as HTTP and OpenAI's JSON say it.

Takes a status and words, gives OpenAI's error object. Knows nothing about sockets.
"""

from typing import Any

from localseek.errors import LocalseekError
from localseek.events import Failed

MAX_WORDS = 500  # characters of a message: it may quote what the client sent
SERVER, REQUEST, RATE = "server_error", "invalid_request_error", "rate_limit_error"


class ApiError(LocalseekError):
    """A request that is not answered; `param` names the field, `code` what a program can match."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def to_object(self) -> dict[str, Any]:
        """Give OpenAI's error object."""
        kind = RATE if self.status == 429 else SERVER if self.status >= 500 else REQUEST
        return {
            "error": {
                "message": self.message[:MAX_WORDS], "type": kind, "param": self.param,
                "code": self.code,
            }
        }  # fmt: skip


def of_failure(failed: Failed, begun: bool) -> ApiError:
    """Give the error that an engine's failure is to a client.

    What fails before the engine has `begun` to read the prompt is the request's own mistake.
    """
    if failed.fatal:  # the hint says where its log is: no client's business
        return ApiError(500, failed.message, code="engine_died")
    text = f"{failed.message} {failed.hint}".strip()
    if failed.too_long:
        return ApiError(400, text, "messages", "context_length_exceeded")
    if begun and not failed.wrong_use:
        return ApiError(500, text, code="engine_failed")
    return ApiError(400, text, code="refused_by_engine")
