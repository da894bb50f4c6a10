"""GGUF files as they are: headers read with every bound checked, and what they tell of a model."""
