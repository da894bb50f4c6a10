"""What the screen must not wait for: engine, history and models, each on its own thread."""
