"""The machine: its memory and devices, the network that is closed, paths, the environment."""
