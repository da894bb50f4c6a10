"""A conversation with an engine: prompts in, replies out, each shown what was said before.

Takes an engine, a system prompt and what was said earlier; keeps every turn. Knows nothing about
where conversations are saved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from localseek.api.answer import Answer
from localseek.api.engine import Engine
from localseek.api.keywords import messages_from, request_base, with_options
from localseek.errors import UsageError
from localseek.options import Message, Request
from localseek.text.answers import checked
from localseek.text.conversation import Reply, Transcript, Turn


class Talk:
    """What a conversation holds, and how its next request is made."""

    def __init__(
        self, system: str, messages: Sequence[Message | Mapping[str, str]],
        request: Request | None, options: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self._base = with_options(request_base(request), {"system": system, **options})
        self._transcript = Transcript(system)
        if messages:
            self._take_over(messages)

    @property
    def system(self) -> str:
        """Give the system prompt."""
        return self._transcript.system

    @property
    def turns(self) -> list[Turn]:
        """Give every prompt with its reply, also those that the model is not shown again.

        The list is the conversation's own: a turn that is taken out of it was never said.
        """
        return self._transcript.turns

    @property
    def messages(self) -> list[Message]:
        """Give what the model is shown of all this, with the system prompt.

        A turn without any answer (failed, or stopped while thinking) is left out; an answer that
        was cut off or cancelled counts as far as it came.
        """
        return [*self._transcript.messages("")[:-1]]

    def _request(self, prompt: str, options: Mapping[str, Any]) -> Request:
        if "system" in options:
            raise UsageError("A conversation has one system prompt.", "Give it to Conversation(…).")
        messages_from(prompt)  # raises UsageError for what is no prompt
        made = with_options(self._base, options)
        return replace(made, messages=self._transcript.messages(prompt))

    def _said(self, prompt: str, request: Request, reply: Reply) -> None:
        self._transcript.add(prompt, checked(reply, request.sampling))

    def _take_over(self, messages: Sequence[Message | Mapping[str, str]]) -> None:
        """Go on from messages that were said elsewhere; raises UsageError."""
        if isinstance(messages, str) or not isinstance(messages, Sequence):
            raise UsageError("messages is not a list of messages.")
        given = [*messages_from([*messages, Message("user", "-")])[:-1]]
        if given[0].role == "system":
            said = given.pop(0).content
            self._transcript.system = self._transcript.system or said
        prompts, answers = given[::2], given[1::2]
        if len(prompts) != len(answers) or {one.role for one in prompts} != {"user"} or (
            {one.role for one in answers} != {"assistant"}
        ):
            raise UsageError("The messages are not prompts and answers in turns.")
        for one, answer in zip(prompts, answers, strict=True):
            self._transcript.add(one.content, Reply(answer=answer.content, finish_reason="stop"))


class Conversation(Talk):
    """A conversation, for one thread at a time; several may share an engine.

    The next prompt ends an answer that is still on its way.
    """

    def __init__(
        self, engine: Engine, system: str = "",
        messages: Sequence[Message | Mapping[str, str]] = (), *, request: Request | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        """Begin, or go on after `messages`; options count for every prompt that has no others."""
        if not isinstance(engine, Engine):
            raise UsageError(f"The engine is {engine!r}, not an Engine.", "Make one: Engine(…).")
        super().__init__(system, messages, request, options)
        self._engine = engine
        self._answer: Answer | None = None

    def ask(self, prompt: str, **options: Any) -> Reply:
        """Answer a prompt; see `Engine.reply`."""
        with self.stream(prompt, **options) as answer:
            return answer.reply

    def stream(self, prompt: str, **options: Any) -> Answer:
        """Begin to answer a prompt; it is part of the conversation once it is over or closed."""
        if self._answer is not None:
            self._answer.close()
        request = self._request(prompt, options)
        self._answer = self._engine.generate(request, partial(self._said, prompt, request))
        return self._answer
