"""The screens: the chat, and pages of plain text over it."""
