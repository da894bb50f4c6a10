"""The Python API: engines, answers, batches, conversations; `from localseek import …` gives them.

The command line, `serve` and the app reach the engine through this room alone.
"""
