"""A model in memory: loaded where the placement says, its saved sequences put back."""
