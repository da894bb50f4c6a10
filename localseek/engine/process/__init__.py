"""The border around the child process: its client, the messages, the bridge to workers."""
