"""What is converted: a checkpoint folder or another GGUF file, its tensors as they are stored."""
