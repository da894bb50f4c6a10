"""One step after the other: prompts read, tokens drafted, checked, sampled, turned into text."""
