"""Compare our files with llama.cpp's own converter and llama-quantize: run by hand.

    python tests/reference/compare_llama_cpp.py LLAMA_CPP_TREE LLAMA_QUANTIZE WORK_FOLDER [MODEL…]

Needs torch and transformers in the Python that runs it (for convert_hf_to_gguf.py); the converters
themselves run in the same Python with numpy, gguf and llama-cpp-python's library on its path.
Makes the small checkpoints of tests/checkpoints.py, converts each with both programs, compares
tensors bit for bit and metadata key by key. The mixtures that need no importance matrix are
compared with llama-quantize; quantize_types.py compares the types of all of them.
"""

from __future__ import annotations

import importlib
import multiprocessing
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "converters")]

import golden_models  # noqa: E402 - the paths above come first
from gguf import GGUFReader  # noqa: E402

import converters  # noqa: E402
from converters.types import recipe  # noqa: E402

PLAIN = ("F32", "F16", "BF16", "Q8_0")
MIXTURES = tuple(name for name in recipe.MIXTURES if name not in (*PLAIN, *recipe.NEED_IMATRIX))

# Why a metadata key may differ; a key that is not here is an unexplained difference.
EXPLAINED = {
    "general.name": "ours is the folder's name, theirs prettifies it",
    "general.basename": "theirs guesses it from the folder's name",
    "general.finetune": "theirs guesses it from the folder's name",
    "general.version": "theirs guesses it from the folder's name",
    "general.size_label": "ours counts the MTP layer, theirs drops it",
    "localseek.version": "ours tells its origin",
    "localseek.source.fingerprint": "ours tells its origin",
    "localseek.recipe": "ours tells its origin",
    "localseek.imatrix.fingerprint": "ours tells its origin",
    "deepseek2.block_count": "ours keeps the MTP layer",
    "deepseek2.nextn_predict_layers": "ours keeps the MTP layer",
    "deepseek4.vocab_size": "theirs leaves it to the list of tokens",
    "tokenizer.chat_template": "theirs adds one of llama.cpp's own where the release has none",
    "deepseek2.attention.q_lora_rank": "0 for lite models: the loader demands the key (trap 1)",
    "deepseek2.expert_group_count": "dropped where it limits nothing (trap 5)",
    "deepseek2.expert_group_used_count": "dropped where it limits nothing (trap 5)",
    "tokenizer.ggml.add_bos_token": "ours as Hugging Face behaves (trap 2)",
    "tokenizer.ggml.eot_token_id": "an end that config.json names besides the tokenizer's EOS",
    "qwen3.rope.scaling.yarn_attn_factor": "no key of transformers, and read by no loader here",
}


def fields(reader: GGUFReader) -> dict[str, Any]:
    return {
        key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")
    }


def tensors(reader: GGUFReader) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in reader.tensors}


def compare_tensors(ours: GGUFReader, theirs: GGUFReader, n_layer: int) -> str:
    left, right = tensors(ours), tensors(theirs)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    draft = f"blk.{n_layer}."
    for name in sorted(left.keys() | right.keys()):
        if name not in right:
            counts["MTP, ours only" if name.startswith(draft) else "ours only"] += 1
        elif name not in left:
            counts["theirs only"] += 1
            problems.append(f"theirs only: {name}")
        elif left[name].tensor_type != right[name].tensor_type:
            kind = "MTP, other type" if name.startswith(draft) else "other type"
            counts[kind] += 1
            if kind == "other type":
                problems.append(
                    f"{name}: {left[name].tensor_type.name} / {right[name].tensor_type.name}"
                )
        elif list(left[name].shape) != list(right[name].shape):
            counts["other shape"] += 1
            problems.append(name)
        elif np.array_equal(left[name].data.view(np.uint8), right[name].data.view(np.uint8)):
            counts["equal"] += 1
        else:
            counts["other bytes"] += 1
            problems.append(f"bytes of {name}")
    text = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return text + "".join(f"\n      PROBLEM {line}" for line in problems)


def compare_metadata(ours: GGUFReader, theirs: GGUFReader) -> list[str]:
    left, right = fields(ours), fields(theirs)
    lines = []
    for key in sorted(left.keys() | right.keys()):
        a, b = left.get(key, "—"), right.get(key, "—")
        if a == b:
            continue
        why = EXPLAINED.get(key, "UNEXPLAINED")
        lines.append(f"      {key}: {str(a)[:60]!s} / {str(b)[:60]!s}: {why}")
    equal = sum(left.get(key) == right.get(key) for key in left)
    return [f"      {equal} keys equal", *lines]


def reference_convert(
    tree: Path, model: Path, out: Path, kind: str, pre: str, extra: tuple[str, ...] = ()
) -> None:
    """Run convert_hf_to_gguf.py in a fork, so that torch is imported only once."""
    arguments = ("convert_hf_to_gguf.py", str(model), "--outfile", str(out))
    arguments += ("--outtype", kind.lower(), *extra)
    child = multiprocessing.get_context("fork").Process(
        target=run_reference, args=(tree, arguments, pre, out.with_suffix(".log"))
    )
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(f"convert_hf_to_gguf.py failed: see {out.with_suffix('.log')}")


def run_reference(tree: Path, arguments: tuple[str, ...], pre: str, log: Path) -> None:
    """Run it with the tree's own gguf, and the pre-tokenizer hash answered: ours is tiny."""
    sys.stderr = log.open("w")
    for name in [name for name in sys.modules if name.partition(".")[0] == "gguf"]:
        del sys.modules[name]
    sys.path[:0] = [str(tree), str(tree / "gguf-py")]
    sys.argv = list(arguments)
    base = importlib.import_module("conversion.base")
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    # Its own set_vocab demands an attribute that transformers 5 tokenizers do not have.
    v32 = importlib.import_module("conversion.deepseek").DeepseekV32Model
    v32.set_vocab = lambda self: self._set_vocab_gpt2()
    runpy.run_path(str(tree / "convert_hf_to_gguf.py"), run_name="__main__")


def main() -> None:
    tree, quantize, work = (Path(argument).resolve() for argument in sys.argv[1:4])
    work.mkdir(parents=True)
    importlib.import_module("torch")
    importlib.import_module("transformers").AutoTokenizer  # noqa: B018 - loads it before the forks
    for name in sys.argv[4:] or golden_models.MODELS:
        golden_models.MODELS[name](work / name)
        depth = golden_models.DEPTHS[name]
        print(name)
        for kind in PLAIN:
            ours, theirs = work / f"{name}-{kind}.gguf", work / f"{name}-{kind}-ref.gguf"
            converters.convert(work / name, ours, converters.ConvertOptions(type=kind))
            pre = fields(GGUFReader(ours))["tokenizer.ggml.pre"]
            reference_convert(tree, work / name, theirs, kind, pre)
            readers = GGUFReader(ours), GGUFReader(theirs)
            print(f"    {kind}: {compare_tensors(*readers, depth)}")
            if kind == "F32":
                print("\n".join(compare_metadata(*readers)))
        for kind in MIXTURES:
            ours, theirs = work / f"{name}-{kind}.gguf", work / f"{name}-{kind}-ref.gguf"
            converters.convert(work / name, ours, converters.ConvertOptions(type=kind))
            # From our F32 file, so that the MTP layer is there as well; its tensors equal theirs.
            command = [str(quantize), str(work / f"{name}-F32.gguf"), str(theirs), kind]
            subprocess.run(command, check=True, capture_output=True, timeout=600)
            readers = GGUFReader(ours), GGUFReader(theirs)
            print(f"    {kind}: {compare_tensors(*readers, depth)}")
            theirs.unlink()
            ours.unlink()


if __name__ == "__main__":
    main()
