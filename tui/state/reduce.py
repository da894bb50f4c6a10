"""State × action → state, as pure functions; the whole behaviour of the app is here.

Takes an `AppState`, one `Action` and the time, gives the next `AppState`. Starting an answer,
loading a model and writing to the history are effects: the app does them when the state asks for
it (`next_turn`, a model phase of "loading"). Knows nothing about Textual, threads or the engine.
"""

from dataclasses import replace

from localseek.events import Event, Failed, Finished
from tui.state import actions as act
from tui.state import streaming, tree
from tui.state.views import AppState, ConversationView, ModelView, TurnView
from tui.state.wording import clean


def reduce(state: AppState, action: act.Action, now: float) -> AppState:
    """Give the state after one action."""
    match action:
        case act.Streamed(number, event):
            return _after_event(state, number, event, now)
        case (
            act.ModelAsked() | act.Loading() | act.Loaded() | act.LoadFailed() | act.RestartAsked()
        ):
            return replace(state, model=_model_after(state.model, action))
        case (
            act.Submitted() | act.Started() | act.StopAsked() | act.Withdrawn() | act.RetryAsked()
            | act.ContinueAsked()
        ):  # fmt: skip
            return _turns_after(state, action, now)
        case (
            act.BranchAsked() | act.BranchLeft() | act.VariantAsked() | act.Selected()
            | act.Folded() | act.AllFolded()
        ):  # fmt: skip
            return _view_after(state, action)
    return _conversation_after(state, action)


def next_turn(state: AppState) -> TurnView | None:
    """Give the turn that the engine should start now, if it is free for one."""
    if state.model.phase != "ready" or state.running is not None:
        return None
    return state.waiting[0] if state.waiting else None


def wants_load(before: AppState, after: AppState, action: act.Action) -> bool:
    """Tell whether the user's action asks for the model to be loaded."""
    if isinstance(action, act.ModelAsked):
        return before.model is not after.model
    asked = isinstance(
        action, act.Submitted | act.RetryAsked | act.ContinueAsked | act.RestartAsked
    )
    return asked and before.model.phase != "loading" and after.model.phase == "loading"


# The model


def _model_after(model: ModelView, action: act.Action) -> ModelView:
    match action:
        case act.ModelAsked(name) if name != model.name or model.phase in ("failed", "dead"):
            return ModelView(clean(name))
        case act.Loading(done):
            return replace(model, phase="loading", progress=min(1.0, max(0.0, done)))
        case act.Loaded(info, name):
            return ModelView(
                name=clean(name) or model.name, phase="ready", progress=1.0, thinks=info.thinks,
                drafting=info.drafting, context_size=info.context_size,
                memory_bytes=sum(info.taken_bytes.values()), network=clean(info.network),
            )  # fmt: skip
        case act.LoadFailed(message, hint):
            return replace(model, phase="failed", message=clean(message), hint=clean(hint))
        case act.RestartAsked() if model.phase in ("failed", "dead"):
            return replace(model, phase="loading", progress=0.0, message="", hint="")
    return model


def _after_event(state: AppState, number: int, event: Event, now: float) -> AppState:
    if isinstance(event, Finished | Failed) and state.running == number:
        state = replace(state, running=None)
    if isinstance(event, Failed) and event.fatal:
        message, hint = clean(event.message), clean(event.hint)
        state = replace(state, model=replace(state.model, phase="dead", message=message, hint=hint))
    turn = state.turn(number)
    if turn is None or not (turn.running or turn.phase == "waiting"):
        return state
    return state.with_turn(streaming.after(turn, event, now, state.reasoning))


# Turns


def _turns_after(state: AppState, action: act.Action, now: float) -> AppState:
    match action:
        case act.Submitted(prompt, edits):
            return _submitted(state, prompt, edits)
        case act.RetryAsked(number):
            return _retried(state, number)
        case act.ContinueAsked():
            return _going_on(state)
        case act.Started(number):
            turn = state.turn(number)
            if turn is None:
                return state
            started = replace(turn, phase="reading", started_s=now)
            return replace(state.with_turn(started), running=number)
        case act.StopAsked():
            turn = state.turn(state.running)
            return state.with_turn(replace(turn, phase="stopping")) if turn else state
        case act.Withdrawn(number):
            return _withdrawn(state, number)
    return state


def _submitted(state: AppState, prompt: str, edits: int | None) -> AppState:
    edited = state.turn(edits)
    if edited is None:
        return _added(state, TurnView(0, prompt, parent=state.last.id if state.last else None))
    if not state.settled:
        return state  # what runs would be left behind
    return _added(state, TurnView(0, prompt, parent=edited.parent))


def _retried(state: AppState, number: int) -> AppState:
    turn = state.turn(number)
    if turn is None or not state.settled:
        return state
    first = turn.id if turn.again is None else turn.again
    return _added(state, TurnView(0, turn.prompt, parent=turn.parent, again=first))


def _added(state: AppState, turn: TurnView) -> AppState:
    turns, others = tree.place(state.turns, state.others, replace(turn, id=state.next_id))
    model = _model_after(state.model, act.RestartAsked())
    return replace(
        state, turns=turns, others=others, next_id=state.next_id + 1, model=model, selected=None
    )


def _going_on(state: AppState) -> AppState:
    turn = state.last
    if turn is None or not turn.can_go_on or not state.settled or state.forked:
        return state  # what follows on another branch was asked after the answer as it is
    answered = bool(turn.reply.answer)
    again = replace(
        turn,
        phase="waiting",
        cut=turn,
        reply=replace(turn.reply, finish_reason="", stats=None, error=""),
        notices=(),
        read=0,
        to_read=0,
        tokens=0,
        first_s=None,
        thought_s=turn.thought_s if answered else None,
        thought_before_s=turn.thought_s or 0.0,
        ended_s=None,
    )
    return replace(
        state.with_turn(again), model=_model_after(state.model, act.RestartAsked()), selected=None
    )


def _withdrawn(state: AppState, number: int | None) -> AppState:
    taken = next((turn for turn in state.waiting if turn.id == number), None)
    if number is None and state.waiting:
        taken = state.waiting[-1]
    if taken is None:
        return state
    if taken.cut is not None:
        return state.with_turn(taken.cut)
    turns = tuple(turn for turn in state.turns if turn.id != taken.id)
    beside = [turn for turn in state.others if turn.parent == taken.parent]
    if not beside:
        return replace(state, turns=turns)
    shown, others = tree.switched(turns, state.others, beside[-1].id)
    return replace(state, turns=shown, others=others)


# What is shown


def _view_after(state: AppState, action: act.Action) -> AppState:
    match action:
        case act.Selected(number):
            return replace(state, selected=number)
        case act.Folded(number, folded):
            turn = state.turn(number)
            if turn is None:
                return state
            return state.with_turn(replace(turn, folded=folded, user_toggled=True))
        case act.AllFolded(folded):
            turns = tuple(replace(t, folded=folded, user_toggled=True) for t in state.turns)
            return replace(state, turns=turns, reasoning="folded" if folded else "auto")
        case act.BranchAsked(number) if state.settled and state.turn(number):
            branches = tree.cut_after(state.turns, state.others, number)
            return _showing(state, branches, None)
        case act.BranchLeft() if state.settled and state.last:
            return _showing(state, tree.switched(state.turns, state.others, state.last.id), None)
        case act.VariantAsked(number, step) if state.settled:
            return _variant(state, number, step)
    return state


def _variant(state: AppState, number: int, step: int) -> AppState:
    turn = state.turn(number)
    if turn is None:
        return state
    found = tree.numbers(tree.variants(state.turns, state.others, turn))
    place = found.index(turn.id) + step
    if not 0 <= place < len(found):
        return state
    branches = tree.switched(state.turns, state.others, found[place])
    return _showing(state, branches, found[place])


def _showing(state: AppState, branches: tree.Branches, selected: int | None) -> AppState:
    return replace(state, turns=branches[0], others=branches[1], selected=selected)


# Conversations


def _conversation_after(state: AppState, action: act.Action) -> AppState:
    view = state.conversation
    match action:
        case act.NewAsked(temporary, system):
            return _begun(state, ConversationView(system=system, temporary=temporary))
        case act.Opened(conversation, turns, others, at):
            return replace(_begun(state, conversation), turns=turns, others=others, selected=at)
        case act.Deleted(number) if number == view.number:
            return _begun(state, ConversationView(system=view.system))
        case act.SettingsChanged(settings, system):
            view = replace(view, settings=dict(settings), system=system)
        case act.Stored(key, number, title) if key == view.key:
            view = replace(view, number=number, title=title)
        case act.Orphaned(key) if key == view.key:
            view = replace(view, number=None, temporary=True)
        case act.Retitled(number, title) if number == view.number:
            view = replace(view, title=title)
        case act.Listed(listing):
            all_of_them = not listing.query.strip() and not listing.archived
            recent = listing.conversations if all_of_them else state.recent
            return replace(state, listing=listing, recent=recent)
        case act.ModelsListed(models):
            return replace(state, models=models)
        case act.HistoryFailed(message):
            return replace(state, unsaved=clean(message))
    return replace(state, conversation=view)


def _begun(state: AppState, conversation: ConversationView) -> AppState:
    """Show another conversation. A turn that still runs is over once the engine heard of it."""
    key = state.next_key
    return replace(
        state, conversation=replace(conversation, key=key), next_key=key + 1, turns=(), others=(),
        selected=None,
    )  # fmt: skip
