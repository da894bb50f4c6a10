"""The settings of one conversation: its system prompt, and what differs from the command line.

Takes a row of settings (as in a batch) and the presets, gives both anew; each field is checked as
it is typed, by the same checks as the command line's. Knows nothing about the engine.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Footer, Input, Label, Select, Static, TextArea

from localseek.terminal.settings import CHECKS, EFFORTS
from tui.screens.box import Box

FIELDS = {
    "max_tokens": "tokens of a reply at most",
    "think_budget": "tokens of reasoning at most",
    "temperature": "0: the likeliest token, always",
    "top_p": "from the likeliest with this probability together",
    "top_k": "from so many of the likeliest; 0: all",
    "min_p": "not below this share of the likeliest",
    "repeat_penalty": "1: none",
    "seed": "the same one gives the same answer",
}
Result = tuple[dict[str, Any], str]  # settings, system prompt


class SettingsScreen(Box[Result | None]):
    """The form; Ctrl+S or F2 takes it, Esc leaves all as it was."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2,ctrl+s", "take", "Take", key_display="f2", id="settings.take"),
    ]

    VERTICAL_BREAKPOINTS = [(0, "-short"), (28, "-tall")]

    def __init__(
        self, settings: Mapping[str, Any], system: str, presets: Mapping[str, str]
    ) -> None:
        super().__init__()
        self._settings, self._system, self._presets = settings, system, presets

    def compose(self) -> ComposeResult:
        """Show the system prompt, then a line for each setting."""
        with Vertical(id="settings"):
            yield Static(Content.styled("Settings of this conversation", "bold"), markup=False)
            with VerticalScroll(id="settings-fields"):
                yield Label("system prompt")
                if self._presets:
                    yield Select(
                        [(Content(name), name) for name in self._presets], prompt="a preset…",
                        id="preset", compact=True,
                    )  # fmt: skip
                area = TextArea(self._system, id="system", soft_wrap=True, compact=True)
                area.cursor_blink = False
                yield area
                for name, remark in FIELDS.items():
                    with Horizontal(classes="field"):
                        yield Label(name.replace("_", " "))
                        value = self._settings.get(name)
                        field = Input("" if value is None else f"{value}", placeholder=remark,
                                      id=name, compact=True)  # fmt: skip
                        field.cursor_blink = False
                        yield field
                with Horizontal(classes="field"):
                    yield Label("effort")
                    known = f"{' or '.join(EFFORTS)}, where the model knows it"
                    yield Input(str(self._settings.get("effort", "")), placeholder=known,
                                id="effort", compact=True)  # fmt: skip
            yield Static("An empty field leaves it to the command line, then to the model.",
                         id="settings-hint", markup=False)  # fmt: skip
            yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Begin in the system prompt."""
        self.query_one("#system").focus()

    def on_resize(self) -> None:
        """Leave room for what stands around the fields."""
        fields = self.query_one("#settings-fields")
        fields.styles.max_height = max(3, int(self.size.height * 0.9) - 9)

    def on_select_changed(self, event: Select.Changed) -> None:
        """Take a preset's text."""
        if isinstance(event.value, str):
            self.query_one("#system", TextArea).text = self._presets[event.value]

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say at once what is wrong with a value."""
        complaint = self._complaint(event.input.id or "", event.value)
        event.input.set_class(bool(complaint), "-wrong")
        hint = self.query_one("#settings-hint", Static)
        hint.update(Content.styled(complaint, "$text-error") if complaint else Content(""))

    def on_input_submitted(self) -> None:
        """Go on to the next field."""
        self.focus_next()

    def action_take(self) -> None:
        """Give what was set, unless something is wrong with it."""
        row = {name: value for name, value in self._settings.items() if name not in FIELDS}
        row.pop("effort", None)
        for field in self.query(Input):
            name, text = field.id or "", field.value.strip()
            if complaint := self._complaint(name, text):
                self.query_one("#settings-hint", Static).update(
                    Content.styled(complaint, "$text-error")
                )
                field.focus()
                return
            if text:
                row[name] = text if name == "effort" else CHECKS[name](text)
        self.dismiss((row, self.query_one("#system", TextArea).text.strip()))

    def _complaint(self, name: str, text: str) -> str:
        text = text.strip()
        if not text:
            return ""
        if name == "effort":
            return "" if text in EFFORTS else f"effort is {' or '.join(EFFORTS)}."
        try:
            CHECKS[name](text)
        except ValueError as error:
            return f"{name.replace('_', ' ')} is a number {error}."
        return ""
