"""A turn × an event of the engine → the turn after it, as a pure function.

Folds the reasoning once, when the answer begins; a turn that the user has folded or unfolded stays
as it is. Knows nothing about the rest of the app.
"""

from dataclasses import replace

from localseek.events import (
    AnswerDelta,
    AnswerWithdrawn,
    Event,
    Failed,
    Finished,
    Notice,
    PromptProgress,
    ReasoningDelta,
)
from tui.state.views import Phase, Reasoning, TurnView
from tui.state.wording import clean


def after(turn: TurnView, event: Event, now: float, shown: Reasoning) -> TurnView:
    """Give the turn after an event; `shown` says how reasoning is shown that nobody touched."""
    match event:
        case PromptProgress(done, total):
            return replace(turn, read=done, to_read=total)
        case Notice(text):
            return replace(turn, notices=(*turn.notices, clean(text)))
        case ReasoningDelta(text, tokens):
            return _after_reasoning(turn, ReasoningDelta(clean(text), tokens), now, shown)
        case AnswerDelta(text, tokens):
            return _after_answer(turn, AnswerDelta(clean(text), tokens), now, shown)
        case AnswerWithdrawn():
            withdrawn = turn.reply.after(event)
            return replace(turn, reply=withdrawn, reasoning_tokens=turn.tokens, folded=True)
        case Finished(reason):
            ended = _thought_ended(turn, now)
            phase: Phase = "stopped" if reason == "cancelled" else "done"
            return replace(ended, phase=phase, reply=turn.reply.after(event), ended_s=now)
        case Failed(message, hint, fatal):
            told = Failed(clean(message), clean(hint), fatal)
            ended = _thought_ended(turn, now)
            return replace(ended, phase="failed", reply=turn.reply.after(told), ended_s=now)
    return turn


def _after_reasoning(
    turn: TurnView, event: ReasoningDelta, now: float, shown: Reasoning
) -> TurnView:
    starts = not turn.reply.reasoning and not turn.user_toggled
    return replace(
        turn,
        phase="stopping" if turn.phase == "stopping" else "thinking",
        reply=turn.reply.after(event),
        tokens=turn.tokens + event.tokens,
        reasoning_tokens=turn.reasoning_tokens + event.tokens,
        first_s=now if turn.first_s is None else turn.first_s,
        folded=shown == "folded" if starts else turn.folded,
    )


def _after_answer(turn: TurnView, event: AnswerDelta, now: float, shown: Reasoning) -> TurnView:
    starts = not turn.reply.answer and bool(event.text)
    turn = _thought_ended(turn, now) if starts else turn
    folds = starts and shown != "open" and not turn.user_toggled
    return replace(
        turn,
        phase="stopping" if turn.phase == "stopping" else "answering",
        reply=turn.reply.after(event),
        tokens=turn.tokens + event.tokens,
        first_s=now if turn.first_s is None else turn.first_s,
        folded=True if folds else turn.folded,
    )


def _thought_ended(turn: TurnView, now: float) -> TurnView:
    if not turn.reply.reasoning or turn.thought_s is not None:
        return turn
    return replace(turn, thought_s=turn.thinking_s(now))
