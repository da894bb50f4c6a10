"""States of the app, made by actions as the app makes them."""


from localseek.events import (
    AnswerDelta,
    Finished,
    Stats,
)
from localseek.options import ModelInfo
from tui.state import actions as act
from tui.state.reduce import reduce
from tui.state.views import AppState, ModelView

INFO = ModelInfo("/m", "M", "deepseek2", "d", 1, 1, 4096, 4096, drafting=True, thinks=True)
STATS = Stats(generated_tokens=9, reasoning_tokens=7, decode_tps=40.0, context_used=50)


def after(state, *actions, now=0.0):
    for action in actions:
        state = reduce(state, action, now)
    return state


def fresh():
    return AppState(ModelView("m"))


def ready():
    return after(fresh(), act.Loaded(INFO))


def running(prompt="hi"):
    state = after(ready(), act.Submitted(prompt))
    return after(state, act.Started(state.last.id))


def streamed(state, *events, now=0.0):
    return after(state, *(act.Streamed(state.last.id, event) for event in events), now=now)


def finished(state, answer="a", reason="stop"):
    if state.last.phase == "waiting":
        state = after(state, act.Started(state.last.id))
    return streamed(state, AnswerDelta(answer, 1), Finished(reason, STATS))


def shown(state):
    return [(turn.prompt, turn.reply.answer) for turn in state.turns]
