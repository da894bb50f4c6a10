"""Compare V3.2 and V4 with transformers and with llama.cpp's own programs: run by hand.

    python tests/reference/compare_v32_v4.py LLAMA_CPP_TREE LLAMA_QUANTIZE WORK_FOLDER

Needs torch and transformers. Uses the tools of compare_transformers.py and compare_llama_cpp.py on
the small checkpoints of tests/checkpoints_v32.py and checkpoints_v4.py. Prints the largest
difference of logits, and which tensors and metadata keys differ from convert_hf_to_gguf.py's and
llama-quantize's. Writes tests/converters/golden_v32_v4.npz (logits) and golden_types_v32_v4.json
(types that llama-quantize chose), which the test suite compares with.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

import checkpoints_v4  # noqa: E402 - the paths above come first
import checkpoints_v32  # noqa: E402
import compare_llama_cpp as programs  # noqa: E402
import compare_transformers as models  # noqa: E402
from gguf import GGUFReader  # noqa: E402
from gguf.quants import dequantize  # noqa: E402

import converters  # noqa: E402

GOLDEN = ROOT / "tests" / "converters" / "golden_v32_v4.npz"
GOLDEN_TYPES = ROOT / "tests" / "converters" / "golden_types_v32_v4.json"
MIXTURES = ("Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K")
V32 = {
    "v32-fp8": checkpoints_v32.make_v32,
    "v32-bf16-own-head": lambda folder: checkpoints_v32.make_v32(
        folder, dtype="BF16", shared_mtp=False, shards=3
    ),
}

V4 = {
    "v4-fp4": checkpoints_v4.make_v4,
    "v4-fp8-experts": lambda folder: checkpoints_v4.make_v4(folder, experts="fp8", shards=3),
}
V4_TOKENS = 160  # more than the longest compression, 128
# In MXFP4, llama.cpp would round what it multiplies with the experts to Q8_0.
KEPT = ("ffn_gate_inp.weight", "indexer.proj.weight")  # as F32, where the reference keeps BF16
EXACT = converters.ConvertOptions(type="F32", tensor_types=(("_exps", "F32"),))


def convert(folder: Path, kind: str) -> Path:
    out = folder.with_name(f"{folder.name}-{kind}.gguf")
    converters.convert(folder, out, converters.ConvertOptions(type=kind))
    return out


def runtime_logits(model: Path, tokens: np.ndarray[Any, Any]) -> Any:
    out = model.with_suffix(".npz")
    command = [sys.executable, str(models.RUNNER), str(model), str(out), ",".join(map(str, tokens))]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return np.load(out)


def compare_logits(folder: Path, golden: dict[str, Any]) -> None:
    """Compare trunk and MTP with transformers and our own PyTorch layer (the MTP is V3's)."""
    config = json.loads((folder / "config.json").read_text())
    tokens = np.random.default_rng(7).integers(3, 263, models.N_TOKENS)
    weights = models.load_weights(folder)
    logits, hidden = models.reference(folder, weights, torch.from_numpy(tokens))
    with torch.no_grad():
        drafts = models.mtp_reference(config, weights, torch.from_numpy(tokens), hidden)
    found = runtime_logits(folder.with_name(f"{folder.name}-F32.gguf"), tokens)
    golden[f"{folder.name}.tokens"] = tokens
    for key, rows in (("logits", logits), ("mtp_logits", drafts)):
        difference = float(np.abs(found[key] - rows).max())
        print(f"    {key}: max |difference| {difference:.2e} (spread {rows.std():.2f})")
        golden[f"{folder.name}.{key}"] = rows[models.GOLDEN_ROWS].astype(np.float32)


def compare_files(tree: Path, quantize: Path, folder: Path, golden: dict[str, Any]) -> None:
    """Compare tensors and metadata with both of llama.cpp's programs."""
    depth = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    for kind in programs.PLAIN:
        ours, theirs = convert(folder, kind), folder.with_name(f"{folder.name}-{kind}-ref.gguf")
        programs.reference_convert(tree, folder, theirs, kind, "deepseek-v3")
        readers = GGUFReader(ours), GGUFReader(theirs)
        print(f"    {kind}: {programs.compare_tensors(*readers, depth)}")
        if kind == "F32":
            print("\n".join(programs.compare_metadata(*readers)))
    golden[folder.name] = {}
    for kind in MIXTURES:
        ours, theirs = convert(folder, kind), folder.with_name(f"{folder.name}-{kind}-ref.gguf")
        source = folder.with_name(f"{folder.name}-F32.gguf")
        command = [str(quantize), str(source), str(theirs), kind]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        readers = GGUFReader(ours), GGUFReader(theirs)
        print(f"    {kind}: {programs.compare_tensors(*readers, depth)}")
        golden[folder.name][kind] = {
            name: one.tensor_type.name
            for name, one in programs.tensors(readers[1]).items()
            if one.tensor_type.name != "F32"
        }


def v4_weights(folder: Path) -> models.Weights:
    """Decode a V4 checkpoint with torch's own types; E2M1 by its table (OCP MX 1.0)."""
    stored: models.Weights = {}
    for shard in sorted(folder.glob("*.safetensors")):
        stored |= load_file(shard)
    e2m1 = torch.tensor([*(0, 0.5, 1, 1.5, 2, 3, 4, 6), *(0, -0.5, -1, -1.5, -2, -3, -4, -6)])
    weights: models.Weights = {}
    for name, value in stored.items():
        if name.endswith(".scale"):
            continue
        weights[name] = value.float() if value.is_floating_point() else value
        scale = stored.get(name.removesuffix("weight") + "scale")
        if value.dtype == torch.int8:
            codes = value.view(torch.uint8).long()
            values = torch.stack([e2m1[codes & 15], e2m1[codes >> 4]], -1).flatten(-2)
            weights[name] = values * scale.float().repeat_interleave(32, 1)
        elif value.dtype == torch.float8_e4m3fn:
            spread = scale.float().repeat_interleave(128, 0).repeat_interleave(128, 1)
            weights[name] = value.float() * spread[: value.shape[0], : value.shape[1]]
    return weights


def compare_v4_logits(folder: Path, golden: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    plain = folder.with_name(folder.name + "-f32")
    plain.mkdir()
    config = json.loads((folder / "config.json").read_text())
    for key in ("quantization_config", "expert_dtype"):
        config.pop(key)
    (plain / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    kept = {
        name: value.contiguous()
        for name, value in v4_weights(folder).items()
        if not name.startswith("mtp.")
    }
    save_file(kept, plain / "model.safetensors", metadata={"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(
        plain, dtype=torch.float32, attn_implementation="eager"
    )
    tokens = np.random.default_rng(7).integers(3, 263, V4_TOKENS)
    with torch.no_grad():
        rows = model(torch.from_numpy(tokens)[None]).logits[0].numpy()
    out = folder.with_name(f"{folder.name}-exact.gguf")
    converters.convert(folder, out, EXACT)
    difference = float(np.abs(runtime_logits(out, tokens)["logits"] - rows).max())
    print(f"    logits: max |difference| {difference:.2e} (spread {rows.std():.2f})")
    golden[f"{folder.name}.tokens"] = tokens
    golden[f"{folder.name}.logits"] = rows[2::8].astype(np.float32)


def compare_v4_files(tree: Path, folder: Path) -> None:
    """Compare trunk and MTP file bit for bit, every tensor in the type that the reference chose."""
    for mtp, extra in (("drop", ()), ("only", ("--mtp",))):
        theirs = folder.with_name(f"{folder.name}-{mtp}-ref.gguf")
        programs.reference_convert(tree, folder, theirs, "bf16", "deepseek-v3", extra)
        reader = GGUFReader(theirs)
        exact = tuple(
            (f"^{re.escape(one.name)}$", one.tensor_type.name)
            for one in reader.tensors
            if one.tensor_type.name not in ("F32", "I32") and not one.name.endswith(KEPT)
        )
        ours = folder.with_name(f"{folder.name}-{mtp}.gguf")
        options = converters.ConvertOptions(type="F32", mtp=mtp, tensor_types=exact)
        converters.convert(folder, ours, options)
        print(f"    {mtp}: {same_tensors(GGUFReader(ours), reader)}")
        print("\n".join(programs.compare_metadata(GGUFReader(ours), reader)))


def same_tensors(ours: GGUFReader, theirs: GGUFReader) -> str:
    """Compare bytes; where ours is F32 and theirs BF16, as for routers, compare the values."""
    left, right = programs.tensors(ours), programs.tensors(theirs)
    assert left.keys() == right.keys(), left.keys() ^ right.keys()
    different = []
    for name, one in left.items():
        data, other = one.data, right[name].data
        if one.tensor_type != right[name].tensor_type:
            data = dequantize(data, one.tensor_type)
            other = dequantize(other, right[name].tensor_type)
        if list(one.shape) != list(right[name].shape) or not np.array_equal(data, other):
            different.append(name)
    return f"{len(left)} tensors, different: {different or 'none'}"


def main() -> None:
    tree, quantize, work = (Path(argument).resolve() for argument in sys.argv[1:4])
    work.mkdir(parents=True)
    logits: dict[str, Any] = {}
    types: dict[str, Any] = {}
    for name, make in V32.items():
        print(name)
        compare_files(tree, quantize, make(work / name), types)
    for name, make in V4.items():
        print(name)
        folder = make(work / name)
        if name == "v4-fp4":  # the only one that the reference can read
            compare_v4_files(tree, folder)
    # After the forks of the reference converter, which would inherit torch's threads dead.
    for name in V32:
        print(name)
        compare_logits(work / name, logits)
    for name in V4:
        print(name)
        compare_v4_logits(work / name, logits)
    np.savez_compressed(GOLDEN, **logits)
    GOLDEN_TYPES.write_text(json.dumps(types, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
