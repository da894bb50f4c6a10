"""What a GGUF file says beside its tensors: tokenizer, chat template, sampling, rope."""
