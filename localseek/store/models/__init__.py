"""The models on this machine: found, read once, named."""
