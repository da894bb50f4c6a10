"""The engine: a child process that runs llama.cpp, and the client that talks to it.

`client.Child` is what the rest of localseek uses; `llama/` is the only package that knows
llama_cpp.
"""
