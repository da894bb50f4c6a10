"""What `bench` asks of the engine child, and what it is told: one task, one result.

Plain values with their form on the wire. Knows nothing about how anything is measured.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from localseek.engine.process import protocol
from localseek.options import Mtp

Kind = Literal["prompt", "decode", "text", "question", "drafting", "memory"]


@dataclass(frozen=True, slots=True)
class Task:
    """One measurement.

    `prompt`: read `tokens` random tokens into an empty cache (llama-bench's pp). `decode`: decode
    as many from an empty cache, one by one (its tg). `text`: answer `questions` at temperature 0
    until `tokens` are decoded, the first of each answer not counted. `question`: find one whose
    prompt has `tokens` tokens. `drafting`: let later requests draft as `mtp` says. `memory`: tell
    what this process takes.
    """

    kind: Kind
    mtp: Mtp = "off"
    tokens: int = 0
    seed: int = 0
    questions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a task; what does not belong to its kind is empty. Times in seconds."""

    tokens: int = 0
    seconds: float = 0.0
    cancelled: bool = False
    steps: int = 0  # of a text; then by position of a draft:
    drafted: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()
    prompts: tuple[tuple[int, ...], ...] = ()  # of a text: the tokens of each prompt
    generated: tuple[int, ...] = ()  # and how many came after each
    digest: str = ""  # the same for the same generated tokens
    text: str = ""  # the question
    memory: dict[str, int] = field(default_factory=dict)  # bytes


def encode_task(number: int, task: Task) -> bytes:
    """Give a task as one line."""
    return protocol.encode({"op": "bench", "request": number, **asdict(task)})


def decode_task(message: dict[str, Any]) -> Task:
    """Read a task from a decoded message."""
    fields = {name: value for name, value in message.items() if name not in ("op", "request")}
    return Task(**{**fields, "questions": tuple(fields["questions"])})


def encode_measured(number: int, measured: Measured) -> bytes:
    """Give a result as one line."""
    return protocol.encode({"event": "measured", "request": number, **asdict(measured)})


def decode_measured(message: dict[str, Any]) -> Measured:
    """Read a result from a decoded message."""
    fields = {name: value for name, value in message.items() if name not in ("event", "request")}
    for name in ("drafted", "accepted", "generated"):
        fields[name] = tuple(fields[name])
    fields["prompts"] = tuple(tuple(one) for one in fields["prompts"])
    return Measured(**fields)
