"""Stop strings in a text that streams in pieces: found across borders, never shown.

Takes pieces of text, gives what may be shown. Knows nothing about tokens.
"""

from localseek.text.reasoning import held_back


class StopFilter:
    """Cuts a stream at the first stop string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._text = ""
        self.stopped = False

    @property
    def watches(self) -> bool:
        """Tell whether there is any stop string."""
        return bool(self._stops)

    def feed(self, text: str) -> str:
        """Take a piece, give the part that no stop string can begin in."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        self._text += text
        found = [at for stop in self._stops if (at := self._text.find(stop)) >= 0]
        if found:
            self.stopped = True
            ready, self._text = self._text[: min(found)], ""
            return ready
        keep = max(held_back(self._text, stop) for stop in self._stops)
        ready, self._text = self._text[: len(self._text) - keep], self._text[-keep:] if keep else ""
        return ready

    def finish(self) -> str:
        """Give what was held back, nothing after a stop."""
        rest, self._text = self._text, ""
        return rest
