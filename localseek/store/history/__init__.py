"""Conversations kept on disk: every turn as it streams, variants and forks, search."""
