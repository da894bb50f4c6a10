"""Chat templates: messages to prompt text, as Hugging Face renders them.

Takes the Jinja source that a GGUF file carries, gives the text to tokenize and whether it ends
inside `<think>`. Templates are untrusted: they run in Jinja's immutable sandbox, with a limit on
what they may write. Knows nothing about models.
"""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import FrameType
from typing import Any, NoReturn

import jinja2
from jinja2 import ext, nodes, parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from localseek.errors import ModelError
from localseek.options import Message
from localseek.text.reasoning import CLOSE, OPEN

MAX_SOURCE = 1_000_000  # characters; the longest released template has 10,000
MAX_RENDERED = 50_000_000
BLOCK_END = f"\n{CLOSE}\n\n"  # of a reasoning that stands on lines of its own
MAX_SECONDS = 10.0  # to render; released templates take milliseconds


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt: `opened` when a reply begins inside `<think>`, `closed` after `</think>`.

    `space`: the reply's first word comes after a space that is not its own, as after `Assistant:`.
    """

    text: str
    opened: bool
    closed: bool = False
    space: bool = False


def going_on(prompt: Prompt, reasoning: str, answer: str, closing: str) -> Prompt:
    """Give the prompt with the beginning of a reply behind it, as the model itself wrote it.

    `closing` is how the model ends a reasoning. The reply goes on in the reasoning if there is no
    answer yet. Where the prompt has closed the reasoning already, none is put in.
    """
    text = prompt.text
    if reasoning and not prompt.closed:
        text += reasoning if prompt.opened else f"{OPEN}\n{reasoning}"
        text += closing if answer else ""
    elif answer:
        text += closing if prompt.opened else " " if prompt.space else ""
    return Prompt(text + answer, opened=bool(reasoning) and not answer and not prompt.closed)


def raise_exception(message: str) -> NoReturn:
    """Let a template refuse its input, as Hugging Face's do."""
    raise jinja2.TemplateError(message)


def to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """Write JSON as Hugging Face's filter does: no HTML escapes, non-ASCII kept."""
    allowed = {k: v for k, v in options.items() if k in ("separators", "sort_keys")}
    return json.dumps(value, ensure_ascii=False, indent=indent, **allowed)


def strftime_now(pattern: str) -> str:
    """Give the local time in a template's own pattern."""
    return datetime.now().strftime(pattern)


class Generation(ext.Extension):
    """The tag that marks replies for training, as Hugging Face knows it: here it does nothing."""

    tags = {"generation"}

    def parse(self, source: parser.Parser) -> nodes.Node | list[nodes.Node]:
        """Give what stands within the tags."""
        next(source.stream)
        return source.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, in which nothing can be multiplied to fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiply numbers of a sane size only."""
        for value in (left, right):
            if not isinstance(value, int | float) or abs(value) > 1e9:
                raise jinja2.TemplateError(f"{operator} is for numbers up to a billion")
        if operator == "**" and abs(right) > 64:
            raise jinja2.TemplateError("** is for exponents up to 64")
        return super().call_binop(context, operator, left, right)


@contextlib.contextmanager
def deadline() -> Iterator[None]:
    """Raise TimeoutError when the block takes too long; only the main thread can be watched."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError("it takes too long")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class ChatTemplate:
    """A compiled chat template. Raises ModelError when its source is not a template."""

    def __init__(self, source: str, bos: str, eos: str) -> None:
        if len(source) > MAX_SOURCE:
            raise ModelError("The model's chat template is too long to be one.")
        environment = Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols, Generation]
        )
        environment.filters["tojson"] = to_json
        environment.globals["raise_exception"] = raise_exception
        environment.globals["strftime_now"] = strftime_now
        self.source, self._bos, self._eos = source, bos, eos
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            why = str(error).rstrip(".")
            raise ModelError(
                f"The model's chat template is broken: {why}.",
                "Convert the checkpoint again, or get another file of the model.",
            ) from error

    @property
    def thinks(self) -> bool:
        """Tell whether the template knows of reasoning."""
        return OPEN in self.source or CLOSE in self.source

    @property
    def takes_effort(self) -> bool:
        """Tell whether the template knows of a reasoning effort."""
        return "reasoning_effort" in self.source

    @cached_property
    def closing(self) -> str:
        """Give the text that ends a reasoning as the model itself writes it.

        The template shows it where it renders a prompt for a reply without reasoning: V3.1 and
        later put `</think>` directly before the answer, R1 and the Qwen3 models between lines.
        """
        try:
            end = self.render((Message("user", "a"),), think=False).text
        except ModelError:  # it wants other messages than these
            return BLOCK_END
        after = end[end.rindex(CLOSE) + len(CLOSE) :] if CLOSE in end else "\n\n"
        return BLOCK_END if after.strip() or "\n" in after else CLOSE

    def render(
        self, messages: Sequence[Message], think: bool | None = None, effort: str = ""
    ) -> Prompt:
        """Give the prompt for a reply to `messages`.

        `think` sets the switch that a template has (`thinking`, `enable_thinking`); None turns it
        on. Where it has none but knows of reasoning, None leaves it alone, True opens `<think>`
        and False puts an empty block, which is how R1 is kept from reasoning.
        """
        text = self._text(messages, think, effort)
        end = text.rstrip()
        return Prompt(text, end.endswith(OPEN), end.endswith(CLOSE), text.endswith("Assistant:"))

    def _text(self, messages: Sequence[Message], think: bool | None, effort: str) -> str:
        if not self.thinks:
            return self._write(messages, think, effort)
        switched = {wanted: self._write(messages, wanted, effort) for wanted in (True, False)}
        has_switch = switched[True] != switched[False]
        if think is None:
            return switched[True] if has_switch else self._write(messages, None, effort)
        text = switched[think]
        end = text.rstrip()
        opened = end.endswith(OPEN)
        if (opened and think) or end.endswith(CLOSE) or (has_switch and not opened):
            return text
        before = end.removesuffix(OPEN) if opened else text
        return f"{before}{OPEN}\n" if think else f"{before}{OPEN}\n{BLOCK_END}"

    def _write(self, messages: Sequence[Message], think: bool | None, effort: str) -> str:
        values: dict[str, Any] = {
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "add_generation_prompt": True, "bos_token": self._bos, "eos_token": self._eos,
        }  # fmt: skip
        if think is not None:
            values |= {"thinking": think, "enable_thinking": think}
        if effort:
            values["reasoning_effort"] = effort
        parts: list[str] = []
        length = 0
        try:
            with deadline():
                for part in self._template.generate(values):
                    parts.append(part)
                    length += len(part)
                    if length > MAX_RENDERED:
                        raise ModelError("The model's chat template writes without end.")
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError,
                AttributeError, RecursionError, MemoryError, TimeoutError) as error:  # fmt: skip
            raise ModelError(f"The model's chat template refused the messages: {error}.") from error
        return "".join(parts)
