"""Before and after a conversion: what it would give, and whether every value is right."""
