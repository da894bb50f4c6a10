"""What is kept on disk: the library of models, downloads, saved sequences."""
