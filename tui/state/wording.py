"""States and numbers in words: the same ones in the status line, the panels and the exports.

Takes plain state, gives plain text that holds no control character. Every state is said in
words, so that nothing is told by colour alone. Knows nothing about Textual.
"""

from pathlib import PurePath

from localseek.system.sizes import rough_size
from tui.state.views import AppState, ModelView, TurnView

# Control characters would move the cursor or ring the bell, bidirectional overrides would
# reorder what is read, and a lone surrogate cannot be written to a terminal at all.
_DROPPED = dict.fromkeys(
    [*range(0x00, 0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]
    + [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
) | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def clean(text: str) -> str:
    """Give text without anything that a terminal could take for a command."""
    return text.translate(_DROPPED)


def count(number: int) -> str:
    """Write a whole number with thousands apart."""
    return f"{number:,}"


def tokens(number: int) -> str:
    """Write a number of tokens."""
    return f"{count(number)} token{'' if number == 1 else 's'}"


def seconds(elapsed_s: float) -> str:
    """Write a duration: 0.4 s, 12 s, 3 min 05 s."""
    if elapsed_s < 1:
        return f"{max(0.1, elapsed_s):.1f} s"
    whole = int(elapsed_s)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def reasoning_title(turn: TurnView, now: float) -> str:
    """Say how long the model has thought, or did."""
    stats = turn.reply.stats
    spent = turn.reasoning_tokens
    if stats and stats.reasoning_tokens and not turn.goes_on:
        spent = stats.reasoning_tokens
    if turn.thought_s is None and turn.running:
        return f"Thinking… {seconds(turn.thinking_s(now))} · {tokens(spent)}"
    return f"Thought for {seconds(turn.thinking_s(now))} · {tokens(spent)}"


def activity(state: AppState, now: float) -> str:
    """Say in a few words what is going on."""
    turn, model = state.current, state.model
    if model.phase == "loading":
        return f"loading… {model.progress:.0%}"
    if turn and turn.running:
        if turn.phase == "reading" and turn.to_read:
            return f"reading {count(turn.read)} of {count(turn.to_read)}"
        return f"{turn.phase}… {seconds(now - turn.started_s)}"
    if model.phase != "ready":
        return {"dead": "model is down", "failed": "not loaded"}[model.phase]
    return "ready" if turn is None else _ended(turn)


def _ended(turn: TurnView) -> str:
    # A failure is told where it happened; the model itself is ready for the next prompt.
    if turn.phase == "stopped":
        return "stopped"
    return "length limit" if turn.reply.finish_reason == "length" else "ready"


def model_name(model: ModelView) -> str:
    """Give the name that the user knows the model by, without its folder."""
    return PurePath(model.name).name.removesuffix(".gguf") or model.name


def held_back(state: AppState) -> str:
    """Say what keeps this conversation from being saved, "" if it is."""
    if state.conversation.temporary:
        return "temporary"
    return "not saved" if state.unsaved else ""


def offline(model: ModelView) -> tuple[str, ...]:
    """Say how the engine is kept from networks, in three lengths; () while it is not known."""
    if not model.network:
        return ()
    if model.offline:
        by = model.network.rpartition(": ")[2] if ": " in model.network else "held by the kernel"
        return f"⊘ offline, {by}", "⊘ offline", "⊘"
    return f"! {model.network}", "! not cut off", "!"


def figures(state: AppState, now: float) -> list[str]:
    """Give the numbers of the newest turn, most wanted first."""
    turn, shown = state.current, []
    size = state.model.context_size
    if turn is not None and (rate := turn.tokens_per_second(now)):
        shown.append(f"{rate:.1f} tok/s")
    if size:
        shown.append(f"context {count(state.context_used)}/{count(size)}")
    if turn is not None and turn.tokens:
        shown.append(tokens(turn.tokens))
    # Where drafts cannot pay, hardly any are made, and their share would tell nothing.
    if state.draft and state.draft.mean_depth >= 0.05:
        share = state.draft.accepted / state.draft.drafted
        shown.append(f"{state.draft.mean_depth:.1f} drafts, {share:.0%} right")
    if state.model.memory_bytes:
        shown.append(f"{rough_size(state.model.memory_bytes)} memory")
    return shown


def outcome(turn: TurnView, last: bool = True) -> str:
    """Say what stands under a reply: nothing when it just ended well.

    Only the `last` one can go on.
    """
    lines = list(turn.notices)
    if turn.phase == "waiting":
        lines.append("Waiting for the model. Esc takes it back.")
    elif turn.phase == "reading":
        lines.append("Reading the prompt…")
    elif turn.phase == "stopped":
        stopped = "Cut off" if turn.reply.finish_reason == "interrupted" else "Stopped"
        lines.append(f"{stopped}.{_going_on(turn, last)}")
    elif turn.phase == "failed":
        lines.append(f"{turn.reply.error}{_going_on(turn, last)}")
    elif turn.phase == "done" and turn.reply.finish_reason == "length":
        full = turn.reply.stats is not None and turn.reply.stats.filled_context
        where = "end of the context; the conversation can go on" if full else "length limit"
        lines.append(f"Cut off at the {where}.{_going_on(turn, last)}")
    elif turn.phase == "done" and not turn.reply.answer:
        lines.append("The model ended without an answer.")
    return "\n".join(lines)


def _going_on(turn: TurnView, last: bool) -> str:
    return " /continue lets it go on." if last and turn.can_go_on else ""


def branching(place: int, count: int) -> str:
    """Say which of several variants is shown, "" if there is one."""
    return f"‹ {place} of {count} ›" if count > 1 else ""


def statistics(turn: TurnView | None) -> list[tuple[str, str]]:
    """Give a reply's figures as names and values, for a page of their own."""
    stats = turn.reply.stats if turn else None
    if stats is None:
        return []
    rows = [
        ("prompt", f"{tokens(stats.prompt_tokens)}, {count(stats.cached_tokens)} from cache"),
        ("reading", f"{stats.prompt_tps:.1f} tokens a second"),
        ("generated", tokens(stats.generated_tokens)),
        ("of these reasoning", tokens(stats.reasoning_tokens)),
        ("decoding", f"{stats.decode_tps:.1f} tokens a second"),
        ("time", seconds(stats.seconds)),
        ("context", f"{count(stats.context_used)} of {count(stats.context_size)} tokens"),
    ]
    if stats.draft:
        rows += [
            ("drafted", f"{count(stats.draft.drafted)} in {count(stats.draft.steps)} steps"),
            ("accepted", f"{count(stats.draft.accepted)} drafts"),
            (
                "by position",
                " · ".join(f"{share:.0%}" for share in stats.draft.accepted_by_position) or "none",
            ),
            ("drafts a step", f"{stats.draft.mean_depth:.2f}"),
            ("tokens a step", f"{stats.draft.tokens_per_step:.2f}"),
        ]
    return rows
