"""Pictures of the app in states that are set, so that none depends on a clock or a model.

`uv run pytest tests/tui/test_tui_pictures.py --snapshot-update` draws them anew: look at each.
"""

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest
from scripted import STATS, Scripted, ports_of

from localseek.events import Stats
from localseek.options import GenerationOptions
from localseek.store.history.records import Hit, Saved
from localseek.text.conversation import Reply
from tui.app import LocalseekApp
from tui.preferences import Preferences
from tui.screens.conversations import Conversations
from tui.screens.models import Models
from tui.state.actions import Listed, ModelsListed, Selected
from tui.state.views import AppState, ConversationView, Listing, ModelOffer, ModelView, TurnView
from tui.widgets.answer import Answer

NOON = datetime(2020, 5, 17, 12).timestamp()
MODEL = ModelView(
    "r1-distill-7b", "ready", 1.0, thinks=True, drafting=True, context_size=32_768,
    memory_bytes=5_400_000_000, network="cut off by the kernel",
)  # fmt: skip
ANSWER = """\
There are **605** of them.

| step | sum |
|---|---|
| 348 + 200 | 548 |
| 548 + 57 | 605 |

```python
total = 348 + 257
```

1. add the hundreds
2. add the rest
"""
REPLY = Reply("348 + 257:\n48 + 57 = 105\n300 + 200 = 500\n", ANSWER, "stop", STATS)
DONE = TurnView(1, "What is 348 + 257?", "done", REPLY, tokens=60, thought_s=12.0)
CJK = replace(
    DONE,
    prompt="用中文回答:量化模型是什么?👩‍🔬",
    reply=Reply(
        "用户想知道什么是量化。",
        "量化把权重写成更少的位数,例如 **4 位**,这样模型更小、更快。",
        "stop",
        STATS,
    ),
)
CONVERSATIONS = (
    Saved(3, "北京今天天气怎么样?", "", "nano", NOON, NOON, True, False, None, 4),
    Saved(2, "Why is the sky blue?", "", "v2-lite", NOON, NOON, False, False, None, 12),
    Saved(1, "A title that is long enough to reach the end of a narrow line of a list", "",
          "r1-distill-7b", NOON, NOON, False, False, None, 2),
)  # fmt: skip
OFFERS = (
    ModelOffer("nano", 6_800_000, "Q8_0", "deepseek2", True, True, "embedded: takes 33 MB"),
    ModelOffer("r1-distill-7b", 4_700_000_000, "Q4_K_M", "qwen2", False, True,
               "takes 5.4 GB of 12.0 GB free memory"),
    ModelOffer("v3", 400_000_000_000, "Q4_K_M", "deepseek2", True, False,
               "388 GB of its 404 GB stay on the disk and are read over and over: slow"),
)  # fmt: skip


def shown(state: AppState, *turns: TurnView, **changes) -> AppState:
    return replace(state, **({"model": MODEL, "turns": turns} | changes))


async def still(app, pilot):
    """Wait until nothing on the screen changes any more."""
    same, before = 0, ""
    while same < 4:
        await pilot.pause(0.05)
        now = app.export_screenshot()
        caught_up = all(answer.caught_up for answer in app.query(Answer))
        same, before = (same + 1 if now == before and caught_up else 0), now


@pytest.fixture
def picture(snap_compare, monkeypatch):
    """Compare a picture of the app in a state, after some keys."""
    monkeypatch.setenv("TZ", "UTC")

    def compare(make, *keys, size=(100, 30), theme="", box=None, actions=()):
        options = GenerationOptions("r1-distill-7b")
        preferences = Preferences(theme=theme)
        ports = ports_of(Scripted(), options, preferences=preferences)
        app = LocalseekApp(options, ports, temporary=True)

        async def prepare(pilot):
            while app.state.model.phase != "ready" or app.busy:
                await asyncio.sleep(0.01)
            app.state = make(replace(app.state, conversation=ConversationView(title="Sums")))
            app.dispatch(Selected(app.state.selected))
            await still(app, pilot)  # what lies under a box is not drawn any further
            if box is not None:
                app.push_screen(box(app))
                await pilot.pause()
                app.dispatch(*actions)
            for key in keys:
                await pilot.press(key)
            await still(app, pilot)

        try:
            assert snap_compare(app, terminal_size=size, run_before=prepare)
        finally:
            app.close_session()

    return compare


def test_an_empty_app(picture):
    picture(lambda state: shown(state, conversation=ConversationView()))


def test_an_answer_with_its_reasoning_folded(picture):
    picture(lambda state: shown(state, DONE))


def test_an_answer_with_its_reasoning_open(picture):
    picture(lambda state: shown(state, replace(DONE, folded=False)))


def test_the_light_theme(picture):
    picture(lambda state: shown(state, replace(DONE, folded=False)), theme="localseek-light")


def test_the_ansi_theme(picture):
    picture(lambda state: shown(state, DONE), theme="ansi-dark")


def test_forty_columns(picture):
    picture(lambda state: shown(state, DONE), size=(40, 24))


def test_chinese_and_emoji(picture):
    picture(lambda state: shown(state, replace(CJK, folded=False)), size=(60, 20))


def test_a_variant_that_is_selected_with_keys_for_it(picture):
    other = replace(DONE, id=2)
    picture(lambda state: shown(state, DONE, others=(other,), selected=1), "escape")


def test_an_answer_that_was_stopped(picture):
    stopped = replace(DONE, phase="stopped", reply=Reply("348", "The sum of", "cancelled", Stats()))
    picture(lambda state: shown(state, stopped, conversation=ConversationView(temporary=True)))


def test_a_model_that_is_down(picture):
    dead = replace(MODEL, phase="dead", message="The engine died of signal 9.")
    error = "The engine died of signal 9. Its log is engine.log."
    reply = Reply("", "Half an", "failed", None, error)
    failed = replace(DONE, phase="failed", reply=reply, thought_s=None)
    picture(lambda state: shown(state, failed, model=dead))


def test_a_history_that_cannot_be_written(picture):
    words = "The history is damaged, and nothing in it was changed. Move it elsewhere."
    picture(
        lambda state: shown(state, DONE, unsaved=words),
        box=lambda app: Conversations(app.archive),
    )


def test_the_conversations(picture):
    picture(
        lambda state: shown(state, DONE), box=lambda app: Conversations(app.archive),
        actions=[Listed(Listing("", False, CONVERSATIONS))],
    )  # fmt: skip


def test_a_search_at_forty_columns(picture):
    hits = (
        Hit(CONVERSATIONS[1], 5, "assistant", "…because blue light is scattered more than red…"),
        Hit(CONVERSATIONS[1], 7, "user", "and red light?"),
    )

    def box(app):
        screen = Conversations(app.archive)
        screen._query = "light"
        return screen

    picture(
        lambda state: shown(state, DONE), box=box, size=(40, 20),
        actions=[Listed(Listing("light", False, (), hits))],
    )  # fmt: skip


def test_the_models(picture):
    picture(
        lambda state: shown(state, DONE), box=lambda app: Models(), actions=[ModelsListed(OFFERS)]
    )


def test_the_settings(picture):
    picture(lambda state: shown(state, DONE), "f2")


def test_the_help(picture):
    picture(lambda state: shown(state, DONE), "f1", size=(100, 50))
