"""Words in and out of a model: chat template, reasoning, stop texts, conversations, shapes."""
