"""Which ggml type each tensor gets, and why: mixtures, recipes, importance, a size to fit."""
