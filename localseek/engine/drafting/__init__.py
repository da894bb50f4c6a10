"""How many tokens to draft: measured times, acceptance, the best rate."""
