"""Tokenize texts with llama.cpp as a GGUF file says: a program, run in a child process.

    python llama_tokens.py < {"MODEL.gguf": ["text", …], …} > {"MODEL.gguf": {…}, …}

The answer holds for each file `ids` (without BOS, special tokens recognized), `adds_bos`, and
`ends`, the ids that end generation.
"""

from __future__ import annotations

import json
import sys

from llama_cpp import llama_cpp as llama


class Runtime:
    """A file's vocabulary in llama.cpp."""

    def __init__(self, path: str) -> None:
        params = llama.llama_model_default_params()
        params.vocab_only = True
        self._model = llama.llama_model_load_from_file(path.encode(), params)
        assert self._model, f"cannot load {path}"
        self._vocab = llama.llama_model_get_vocab(self._model)
        self.adds_bos = bool(llama.llama_vocab_get_add_bos(self._vocab))

    def ids(self, text: str) -> list[int]:
        data = text.encode()
        room = (llama.llama_token * (len(data) + 8))()
        n = llama.llama_tokenize(self._vocab, data, len(data), room, len(room), False, True)
        return list(room[:n])

    def ends(self) -> list[int]:
        count = llama.llama_vocab_n_tokens(self._vocab)
        return [token for token in range(count) if llama.llama_vocab_is_eog(self._vocab, token)]


def main() -> None:
    answers = {}
    for path, texts in json.load(sys.stdin).items():
        runtime = Runtime(path)
        ids = [runtime.ids(text) for text in texts]
        answers[path] = {"ids": ids, "adds_bos": runtime.adds_bos, "ends": runtime.ends()}
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    llama.llama_backend_init()
    main()
