"""Which verbs can be used now; footer, keys and palette show these only.

Takes the state, gives each action that is not always possible with whether it is. Pure.
"""

from tui.state import AppState


def offered(state: AppState) -> dict[str, bool]:
    """Tell for each conditional action whether it can be used."""
    stoppable = state.running is not None or bool(state.waiting)
    return {
        "stop": stoppable,
        "switch_focus": not stoppable,
        "fold": any(turn.reply.reasoning for turn in state.turns),
        "think": state.model.thinks,
        "new": bool(state.turns or state.previous),
        "retry": state.last is not None and not stoppable,
        "copy": bool(state.last_answer),
        "restart": state.model.phase in ("dead", "failed"),
    }
