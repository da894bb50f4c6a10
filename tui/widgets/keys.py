"""The line of keys, for a screen that stays for days: it forgets the keys that it showed before.

Textual's `Footer` makes all its keys anew whenever what they do changes, and binds each to itself:
the list of those that are bound keeps every key that ever was, with its styles, about 3 MB for ten
prompts. Textual drops closed ones from that list when the value they are bound to is set.
"""

from textual.widgets import Footer


class Keys(Footer):
    """Textual's footer without what it showed before."""

    async def recompose(self) -> None:
        """Show the keys anew, and let go of the old ones."""
        await super().recompose()
        self.mutate_reactive(Footer.compact)
