"""State × action → state, as pure functions; the whole behaviour of the app is here.

Takes an `AppState`, one `Action` and the time, gives the next `AppState`. Starting an answer and
loading a model are effects: `app.py` does them when the state asks for it (`next_turn`, a model
phase of "loading"). Knows nothing about Textual, threads or the engine child.
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
from tui import actions as act
from tui.state import AppState, ModelView, Phase, TurnView
from tui.wording import clean


def reduce(state: AppState, action: act.Action, now: float) -> AppState:  # noqa: PLR0911 — one return an action
    """Give the state after one action."""
    match action:
        case act.Streamed(number, event):
            return _after_event(state, number, event, now)
        case act.Loading() | act.Loaded() | act.LoadFailed() | act.RestartAsked():
            return replace(state, model=_model_after(state.model, action))
        case act.Submitted(prompt):
            return _submitted(state, prompt)
        case act.Started(number):
            return _started(state, number, now)
        case act.StopAsked():
            turn = state.turn(state.running) if state.running is not None else None
            return state.with_turn(replace(turn, phase="stopping")) if turn else state
        case act.Withdrawn():
            return _withdrawn(state)
        case act.Folded(number, folded):
            turn = state.turn(number)
            if turn is None:
                return state
            return state.with_turn(replace(turn, folded=folded, user_toggled=True))
        case act.AllFolded(folded):
            turns = tuple(replace(t, folded=folded, user_toggled=True) for t in state.turns)
            return replace(state, turns=turns, fold_new=folded)
        case act.ThinkSet(think):
            return replace(state, think=think)
        case act.NewAsked():
            return _new_conversation(state)
        case act.RetryAsked():
            return _retried(state)


def next_turn(state: AppState) -> TurnView | None:
    """Give the turn that the engine should start now, if it is free for one."""
    if state.model.phase != "ready" or state.running is not None:
        return None
    return state.waiting[0] if state.waiting else None


def wants_load(before: AppState, after: AppState, action: act.Action) -> bool:
    """Tell whether the user's action asks for the model to be loaded again."""
    asked = isinstance(action, act.Submitted | act.RetryAsked | act.RestartAsked)
    return asked and before.model.phase != "loading" and after.model.phase == "loading"


def _model_after(model: ModelView, action: act.Action) -> ModelView:
    match action:
        case act.Loading(done):
            return replace(model, phase="loading", progress=min(1.0, max(0.0, done)))
        case act.Loaded(info):
            return ModelView(
                name=clean(info.name) or model.name, phase="ready", progress=1.0,
                thinks=info.thinks, drafting=info.drafting, context_size=info.context_size,
            )  # fmt: skip
        case act.LoadFailed(message, hint):
            return replace(model, phase="failed", message=clean(message), hint=clean(hint))
        case act.RestartAsked() if model.phase in ("failed", "dead"):
            return replace(model, phase="loading", progress=0.0, message="", hint="")
    return model


def _submitted(state: AppState, prompt: str) -> AppState:
    turn = TurnView(state.next_id, prompt)
    model = _model_after(state.model, act.RestartAsked())
    return replace(state, turns=(*state.turns, turn), next_id=state.next_id + 1, model=model)


def _started(state: AppState, number: int, now: float) -> AppState:
    turn = state.turn(number)
    if turn is None:
        return state
    started = replace(turn, phase="reading", started_s=now)
    return replace(state.with_turn(started), running=number)


def _withdrawn(state: AppState) -> AppState:
    if not state.waiting:
        return state
    taken = state.waiting[-1].id
    return replace(state, turns=tuple(turn for turn in state.turns if turn.id != taken))


def _new_conversation(state: AppState) -> AppState:
    if not state.turns:
        return replace(state, turns=state.previous, previous=())
    # A turn that still runs goes on in the engine until it has heard the cancel; it is shown
    # as stopped from here on, since its last event will find no turn.
    kept = tuple(replace(t, phase="stopped") if t.running else t for t in state.turns)
    return replace(state, turns=(), previous=tuple(t for t in kept if t.phase != "waiting"))


def _retried(state: AppState) -> AppState:
    if state.last is None or state.last.running or state.last.phase == "waiting":
        return state
    return _submitted(replace(state, turns=state.turns[:-1]), state.last.prompt)


def _after_event(state: AppState, number: int, event: Event, now: float) -> AppState:
    if isinstance(event, Finished | Failed) and state.running == number:
        state = replace(state, running=None)
    if isinstance(event, Failed) and event.fatal:
        model = replace(
            state.model, phase="dead", message=clean(event.message), hint=clean(event.hint)
        )
        state = replace(state, model=model)
    turn = state.turn(number)
    if turn is None or not (turn.running or turn.phase == "waiting"):
        return state
    return state.with_turn(_turn_after(turn, event, now, fold_new=state.fold_new))


def _turn_after(turn: TurnView, event: Event, now: float, fold_new: bool) -> TurnView:
    match event:
        case PromptProgress(done, total):
            return replace(turn, read=done, to_read=total)
        case Notice(text):
            return replace(turn, notices=(*turn.notices, clean(text)))
        case ReasoningDelta(text, tokens):
            return _after_reasoning(turn, ReasoningDelta(clean(text), tokens), now, fold_new)
        case AnswerDelta(text, tokens):
            return _after_answer(turn, AnswerDelta(clean(text), tokens), now)
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


def _after_reasoning(turn: TurnView, event: ReasoningDelta, now: float, fold_new: bool) -> TurnView:
    starts = not turn.reply.reasoning
    return replace(
        turn,
        phase="stopping" if turn.phase == "stopping" else "thinking",
        reply=turn.reply.after(event),
        tokens=turn.tokens + event.tokens,
        reasoning_tokens=turn.reasoning_tokens + event.tokens,
        first_s=now if turn.first_s is None else turn.first_s,
        folded=fold_new if starts and not turn.user_toggled else turn.folded,
    )


def _after_answer(turn: TurnView, event: AnswerDelta, now: float) -> TurnView:
    starts = not turn.reply.answer and bool(event.text)
    turn = _thought_ended(turn, now) if starts else turn
    return replace(
        turn,
        phase="stopping" if turn.phase == "stopping" else "answering",
        reply=turn.reply.after(event),
        tokens=turn.tokens + event.tokens,
        first_s=now if turn.first_s is None else turn.first_s,
        folded=True if starts and not turn.user_toggled else turn.folded,
    )


def _thought_ended(turn: TurnView, now: float) -> TurnView:
    if not turn.reply.reasoning or turn.thought_s is not None:
        return turn
    return replace(turn, thought_s=turn.thinking_s(now))
