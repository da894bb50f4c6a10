"""OpenAI's protocol on this machine: JSON ↔ requests and replies, the engine shared by clients."""
