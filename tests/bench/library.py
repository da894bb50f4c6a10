"""How long `localseek models list` takes with many models of V3's size, at first and after it.

    python tests/bench/library.py [MODELS]

Makes the files sparse in a temporary folder: whole heads (62 layers, 129,280 tokens), no data.
Prints seconds of processor time, children included.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from fakes.gguf_file import Entry, build_head

TOKENS, LAYERS, WIDTH, EXPERTS = 129_280, 62, 7168, 256
SHAPES = {
    "attn_norm": (WIDTH,), "attn_q_a": (WIDTH, 1536), "attn_q_b": (1536, 24_576),
    "attn_kv_a_mqa": (WIDTH, 576), "attn_k_b": (128, 512, 128), "attn_v_b": (512, 128, 128),
    "attn_output": (16_384, WIDTH), "ffn_norm": (WIDTH,), "ffn_gate_inp": (WIDTH, EXPERTS),
    "ffn_gate_exps": (WIDTH, 2048, EXPERTS), "ffn_up_exps": (WIDTH, 2048, EXPERTS),
    "ffn_down_exps": (2048, WIDTH, EXPERTS), "ffn_gate_shexp": (WIDTH, 2048),
    "ffn_up_shexp": (WIDTH, 2048), "ffn_down_shexp": (2048, WIDTH),
}  # fmt: skip


def v3_head() -> tuple[bytes, int]:
    tensors: list[Entry] = [("token_embd.weight", (WIDTH, TOKENS), 8)]
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            tensors.append((f"blk.{layer}.{name}.weight", shape, 0 if len(shape) == 1 else 8))
    sizes = {
        "block_count": LAYERS, "context_length": 163_840, "embedding_length": WIDTH,
        "expert_count": EXPERTS, "expert_used_count": 8, "attention.head_count": 128,
        "attention.head_count_kv": 1, "attention.key_length_mla": 192,
        "attention.value_length_mla": 128, "attention.key_length": 576,
        "feed_forward_length": 18_432, "expert_feed_forward_length": 2048,
    }  # fmt: skip
    metadata = {
        "general.architecture": "deepseek2", "general.name": "DeepSeek V3",
        **{f"deepseek2.{key}": value for key, value in sizes.items()},
        "tokenizer.ggml.tokens": [f"token {number}" for number in range(TOKENS)],
        "tokenizer.ggml.merges": [f"a{number} b{number}" for number in range(TOKENS)],
    }  # fmt: skip
    return build_head(metadata, tensors)


def seconds(environment: dict[str, str], *words: str) -> float:
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "localseek", "models", "list", *words], env=environment,
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = os.times()
    return after.children_user + after.children_system - (
        before.children_user + before.children_system
    )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    head, size = v3_head()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        models.mkdir()
        for number in range(count):
            with (models / f"model-{number}-Q8_0.gguf").open("wb") as file:
                file.write(head)
                file.truncate(len(head) + size)
        environment = {**os.environ, "LOCALSEEK_HOME": folder, "HOME": folder}
        print(f"{count} models, {len(head) / 1e6:.1f} MB of head each")
        print(f"models list, the first time  {seconds(environment):6.2f} s")
        print(f"models list, after that      {seconds(environment):6.2f} s")
        print(f"models list --names          {seconds(environment, '--names'):6.2f} s")


if __name__ == "__main__":
    main()
