"""What the command palette finds beside the verbs: conversations and models by their names."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tui.lists import Lists
from tui.state.wording import clean

Entry = tuple[str, str, Callable[[], None]]  # name, help, what it does


class Named(Provider):
    """Finds entries by their names."""

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Give all that can be found."""

    @property
    def lists(self) -> Lists:
        """Give the app, which is one of lists."""
        assert isinstance(self.app, Lists)
        return self.app

    async def search(self, query: str) -> Hits:
        """Give what matches the query."""
        matcher = self.matcher(query)
        for name, text, do in self.entries():
            if (score := matcher.match(name)) > 0:
                yield Hit(score, matcher.highlight(name), do, help=text)

    async def discover(self) -> AsyncIterator[DiscoveryHit]:
        """Offer nothing before something is typed: the verbs come first."""
        return
        yield


class ConversationNames(Named):
    """Saved conversations, by their titles."""

    def entries(self) -> list[Entry]:
        """Give the conversations that are listed."""
        return [
            (clean(one.title), "Open this conversation.",
             partial(self.lists.open_conversation, one.id))
            for one in self.lists.state.recent
        ]  # fmt: skip


class ModelNames(Named):
    """Models of the library."""

    def entries(self) -> list[Entry]:
        """Give the models that are listed."""
        return [
            (clean(one.name), "Switch to this model.", partial(self.lists.switch_model, one.name))
            for one in self.lists.state.models
        ]


PROVIDERS: set[type[Provider] | Callable[[], type[Provider]]] = {ConversationNames, ModelNames}
