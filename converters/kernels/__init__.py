"""The number formats: decoding what checkpoints store, ggml's own quantization, on all cores."""
