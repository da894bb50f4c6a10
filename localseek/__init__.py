"""localseek: DeepSeek models on this machine. docs/python.md shows how a program uses them.

Names are imported when they are first asked for, so that `localseek --help` needs none of them.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # as in typing, whose import takes longer than all of `--help`
if TYPE_CHECKING:
    from localseek.api.answer import Answer
    from localseek.api.async_answer import AsyncAnswer, AsyncBatch
    from localseek.api.async_engine import AsyncConversation, AsyncEngine
    from localseek.api.batch import Batch
    from localseek.api.conversation import Conversation
    from localseek.api.engine import Engine
    from localseek.errors import EngineError, LocalseekError, ModelError, UsageError
    from localseek.events import (
        AnswerDelta,
        AnswerWithdrawn,
        Event,
        Failed,
        Finished,
        Notice,
        PromptProgress,
        ReasoningDelta,
        Stats,
    )
    from localseek.options import Fixed, LoadOptions, Message, ModelInfo, Request, Sampling
    from localseek.text.conversation import Reply, Turn

__all__ = [
    "Answer",
    "AnswerDelta",
    "AnswerWithdrawn",
    "AsyncAnswer",
    "AsyncBatch",
    "AsyncConversation",
    "AsyncEngine",
    "Batch",
    "Conversation",
    "Engine",
    "EngineError",
    "Event",
    "Failed",
    "Finished",
    "Fixed",
    "LoadOptions",
    "LocalseekError",
    "Message",
    "ModelError",
    "ModelInfo",
    "Notice",
    "PromptProgress",
    "ReasoningDelta",
    "Reply",
    "Request",
    "Sampling",
    "Stats",
    "Turn",
    "UsageError",
]

_MODULES = (  # where they are looked for, in this order
    "errors", "options", "events", "text.conversation", "api.engine", "api.conversation",
    "api.answer", "api.batch", "api.async_answer", "api.async_engine",
)  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name in __all__:
        from importlib import import_module  # noqa: PLC0415 — `--help` needs none of it

        for module in _MODULES:
            found = getattr(import_module(f"localseek.{module}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module 'localseek' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
