"""localseek: the runtime and the command line. The engine is a child process on llama.cpp."""

__version__ = "0.1.0"
