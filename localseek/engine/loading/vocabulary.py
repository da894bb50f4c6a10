"""What a file says of its tokens, beside what llama.cpp makes of them.

llama.cpp's loader gives some tokens by their text the role of an end: in R1-Distill-Qwen the
ordinary token `</s>` (src/llama-vocab.cpp), which HTML and talk about tokens contain. And it knows
one end or two, where a config.json may name more. Takes a file's facts and the loaded model.
"""

import re

from localseek.engine.llama import Model, Vocabulary
from localseek.gguf.info import GGUFInfo

NORMAL = 1  # LLAMA_TOKEN_TYPE_NORMAL
END_IDS = "localseek.eos_token_ids"  # written by our converter where there are more than two
MARKUP = re.compile(r"</?[a-z]{1,2}>")  # texts that occur as HTML, unlike <|im_end|>


def read_vocabulary(model: Model, info: GGUFInfo) -> Vocabulary:
    """Give the tokens that are ordinary whatever llama.cpp says, and the further ends."""
    ends = {one for one in info.array(END_IDS) if type(one) is int and 0 <= one < model.n_vocab}
    special = [token for token in range(model.n_vocab) if model.is_end(token)]
    doubtful = {
        token: text for token in special
        if token != model.eos and MARKUP.fullmatch(text := model.text(token))
    }  # fmt: skip
    if not doubtful:
        return Vocabulary(ends=frozenset(ends))
    types = info.array("tokenizer.ggml.token_type")
    plain = {t: text for t, text in doubtful.items() if t < len(types) and types[t] == NORMAL}
    return Vocabulary(plain, frozenset(ends))
