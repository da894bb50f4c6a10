"""The list of saved conversations: search as one types, resume, rename, pin, archive, delete.

Takes the state's `Listing` and an archive to ask; gives the number of the chosen
conversation, and that of the message in which the search found something.
"""

from datetime import datetime
from time import monotonic
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input, OptionList

from localseek.store.history.records import Hit, Saved
from tui.screens.box import AGAIN_S
from tui.screens.choosing import Choosing
from tui.state.views import AppState, Listing
from tui.state.wording import clean
from tui.threads.archive import Archive

MOST = 500  # conversations shown at once; a search reaches all


class Conversations(Choosing):
    """The box of conversations."""

    TITLE_TEXT = "Conversations"
    PLACEHOLDER = "search titles and texts"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "rename", "Rename", id="list.rename"),
        Binding("f3", "pin", "Pin", id="list.pin"),
        Binding("f4", "archive", "Archive", id="list.archive"),
        Binding("f6", "archived", "Archived", id="list.archived"),
        Binding("f8", "delete", "Delete", id="list.delete"),
    ]

    def __init__(self, archive: Archive) -> None:
        super().__init__()
        self._archive = archive
        self._archived = False
        self._known: dict[str, Saved] = {}
        self._places: dict[str, int | None] = {}  # the message in which a search found something
        self._naming: Saved | None = None  # the conversation that is being renamed
        self._query = ""  # as it was before the renaming
        self._deleting: tuple[str, float] | None = None  # what a second F8 deletes, since when
        self._listing: Listing | None = None

    def on_mount(self) -> None:
        """Ask for the list."""
        super().on_mount()
        self._look()

    def show(self, state: AppState) -> None:
        """Draw the listing, if it is the one that was asked for."""
        if state.unsaved:
            self.fill([], state.unsaved)
            return
        listing = state.listing
        asked = (self._query, self._archived)
        if listing is self._listing or (listing.query, listing.archived) != asked:
            return
        self._listing = listing
        rows, self._known, self._places = [], {}, {}
        for one in listing.conversations[:MOST]:
            self._known[str(one.id)] = one
            rows.append((str(one.id), title_line(one)))
        for one, hits in by_conversation(listing.hits):
            self._known[str(one.id)] = one
            found = [hit for hit in hits if hit.message is not None]
            text = clean(found[0].excerpt) if found else ""
            text += f"  (and {len(found) - 1} more)" if len(found) > 1 else ""
            self._places[str(one.id)] = found[0].message if found else None
            rows.append((str(one.id), title_line(one, text)))
        nothing = "Nothing is archived." if self._archived else "No conversation is saved yet."
        if listing.query.strip():
            nothing = f"Nothing holds {listing.query.strip()!r}."
        self.hint.update(Content("Archived conversations." if self._archived else ""))
        self.fill(rows, nothing)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search for what stands in the line now."""
        self._disarm()
        if self._naming is None:
            self._query = event.value
            self._look()

    def choose(self) -> None:
        """Open what is marked, or take the new title."""
        if self._naming is not None:
            title = " ".join(self.line.value.split())
            if title:
                self._archive.rename(self._naming.id, title)
            self._stop_naming()
        elif self.marked is not None:
            place = self._places.get(self.marked)
            self.dismiss(self.marked if place is None else f"{self.marked} {place}")

    def action_close(self) -> None:
        """Leave the renaming, or the list."""
        if self._naming is not None:
            self._stop_naming()
        else:
            self.dismiss(None)

    def action_rename(self) -> None:
        """Let the line hold the title, to be changed."""
        self._disarm()
        if self.marked is None or self._naming is not None:
            return
        self._naming = self._known[self.marked]
        self.line.value = self._naming.title
        self.line.select_all()
        self.hint.update(Content("Enter takes the new title, Esc leaves the old one."))

    def action_pin(self) -> None:
        """Keep it at the top, or no longer."""
        self._disarm()
        if self.marked is not None:
            one = self._known[self.marked]
            self._archive.mark(one.id, pinned=not one.pinned)
            self._look()

    def action_archive(self) -> None:
        """Take it off the list, or bring it back."""
        self._disarm()
        if self.marked is not None:
            one = self._known[self.marked]
            self._archive.mark(one.id, archived=not one.archived)
            self._look()

    def action_archived(self) -> None:
        """Show the archived ones, or the others."""
        self._disarm()
        self._archived = not self._archived
        self._look()

    def action_delete(self) -> None:
        """Delete for good on the second press in a row."""
        marked, now = self.marked, monotonic()
        if marked is None or self._naming is not None:
            return
        armed, self._deleting = self._deleting, None
        if armed is None or armed[0] != marked or now - armed[1] > AGAIN_S:
            self._deleting = (marked, now)
            title = clean(self._known[marked].title)
            self.hint.update(
                Content.styled(f"F8 again deletes “{title}” for good.", "$text-warning")
            )
            return
        self.hint.update(Content(""))
        self._archive.delete(self._known[marked].id)
        self._look()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Forget a first F8 once another conversation is marked."""
        if self._deleting is not None and self._deleting[0] != event.option_id:
            self._disarm()

    def _disarm(self) -> None:
        if self._deleting is not None:
            self._deleting = None
            self.hint.update(Content(""))

    def _stop_naming(self) -> None:
        with self.prevent(Input.Changed):
            self.line.value = self._query
        self._naming = None
        self.hint.update(Content(""))
        self._look()

    def _look(self) -> None:
        self._listing = None
        self._archive.look(self._query, self._archived)


def by_conversation(hits: tuple[Hit, ...]) -> list[tuple[Saved, list[Hit]]]:
    """Give the hits of each conversation together, in the order of the first ones."""
    found: dict[int, list[Hit]] = {}
    for hit in hits:
        found.setdefault(hit.conversation.id, []).append(hit)
    return [(those[0].conversation, those) for those in found.values()]


def title_line(one: Saved, found: str = "") -> Content:
    """Give a conversation's title with when it was used, and under it where a search hit."""
    pinned = "★ " if one.pinned else ""
    away = " · archived" if one.archived and found else ""
    first = Content.assemble(
        (pinned, "$text-accent"), clean(one.title) or "(no title)",
        (f"  {when(one.used)} · {clean(one.model)}{away}", "dim"),
    )  # fmt: skip
    return Content.assemble(first, ("\n    " + found, "dim italic")) if found else first


def when(used: float, now: datetime | None = None) -> str:
    """Say when something was: the time today, else the day."""
    then, now = datetime.fromtimestamp(used), now or datetime.now()
    if then.date() == now.date():
        return then.strftime("%H:%M")
    return then.strftime("%d %b" if then.year == now.year else "%d %b %Y")
