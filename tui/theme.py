"""The two themes of localseek's own: quiet greys and one blue accent, dark and light.

Textual's other themes work as well and are in the palette; nothing in app.tcss names a colour
that is not a theme variable.
"""

from textual.theme import Theme

_LIGHT_INK, _DARK_INK = "#e3e6ee", "#1f2430"

DARK = Theme(
    name="localseek-dark",
    dark=True,
    primary="#7c9cff",
    secondary="#7c9cff",
    accent="#7c9cff",
    foreground=_LIGHT_INK,
    background="#12141a",
    surface="#191c24",
    panel="#21252f",
    success="#7fb88f",
    warning="#d9b26f",
    error="#e5828b",
    variables={"footer-key-foreground": "#7c9cff", "footer-background": "#12141a"},
)
LIGHT = Theme(
    name="localseek-light",
    dark=False,
    primary="#3655d1",
    secondary="#3655d1",
    accent="#3655d1",
    foreground=_DARK_INK,
    background="#fbfbfd",
    surface="#f1f3f8",
    panel="#e6e9f1",
    success="#2f7a47",
    warning="#8a6116",
    error="#b3303c",
    variables={"footer-key-foreground": "#3655d1", "footer-background": "#fbfbfd"},
)
