"""Which verbs can be used now; footer, keys and palette show these only.

Takes the state, gives each action that is not always possible with whether it is. Pure.
"""

from tui.state.views import AppState


def offered(state: AppState) -> dict[str, bool]:
    """Tell for each conditional action whether it can be used."""
    stoppable = state.running is not None or bool(state.waiting)
    settled, chosen = state.settled, state.chosen
    beside = chosen is not None and any(one.parent == chosen.parent for one in state.others)
    return {
        "stop": stoppable,
        "switch_focus": not stoppable,
        "fold": any(turn.reply.reasoning for turn in state.turns),
        "fold_one": chosen is not None and bool(chosen.reply.reasoning),
        "think": state.model.thinks,
        "new": bool(state.turns) or state.conversation.temporary,
        "retry": chosen is not None and settled,
        "continue": (
            settled and state.last is not None and state.last.can_go_on and not state.forked
        ),
        "edit": chosen is not None and settled,
        "fork": settled and chosen is not None and chosen is not state.last,
        "variant": settled and beside,
        "copy": bool(state.last_answer),
        "copy_code": "```" in state.last_answer or bool(chosen and "```" in chosen.reply.answer),
        "find": bool(state.turns),
        "stats": bool(state.turns),
        "plan": state.model.phase == "ready",
        "restart": state.model.phase in ("dead", "failed"),
    }
