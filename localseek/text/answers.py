"""Whether a reply has the form that was asked for: the one check that every verb uses.

Takes a finished reply and what was asked, gives the reply with what is wrong in words. Knows
nothing about how the form was kept while the answer was generated.
"""

from dataclasses import replace

from localseek.options import Sampling
from localseek.text.conversation import Reply
from localseek.text.schema import can_go_on, misfit


def checked(reply: Reply, sampling: Sampling) -> Reply:
    """Give the reply with an `error` if it lacks the form that a schema or a grammar asks for."""
    if not sampling.shaped or reply.never_answered:
        return reply
    if reply.finish_reason == "length" and (
        not sampling.schema or can_go_on(reply.answer)
    ):
        return replace(reply, error=cut_off(reply, bool(sampling.schema)))
    if sampling.schema and reply.finish_reason in ("stop", "length"):
        why = misfit(reply.answer, sampling.schema)
        return replace(reply, error=f"The answer does not fit the schema: {why}.") if why else reply
    return reply


def cut_off(reply: Reply, json: bool = False) -> str:
    """Say where a reply was cut off, and what would have made room."""
    what = "answer" if reply.answer else "reasoning"
    lack = ": it is not whole JSON" if json and reply.answer else ""
    if reply.stats is not None and reply.stats.filled_context:
        text = f"The {what} was cut off at the end of the context{lack}; --ctx can make it larger"
    else:
        text = f"The {what} was cut off at the token limit{lack}; --max-tokens can raise it"
    return text + ("." if reply.answer else ", --think-budget leaves room for an answer.")
