"""The only package that reaches for the internet: the Hugging Face Hub, asked and read from."""
