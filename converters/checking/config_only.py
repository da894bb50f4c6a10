"""A checkpoint of which only config.json is at hand: enough to plan a conversion, not to run it.

Takes a folder without weights or the path of a config.json under any name. Gives what an open
checkpoint gives (`Checkpoint`), with the tensors that the release of such a model holds: those that
the family asks for, and those that a family looks for before it decides: the MTP layer with its
copies of embedding and output. Dtypes are those of the releases: BF16, or FP8 with block scales
where config.json says so.
Has no bytes: reading any is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from converters.errors import ConvertError
from converters.families import draft_family, find_family
from converters.kernels.dtypes import FP4_BLOCK, scale_shape
from converters.layout import Dropped, Target
from converters.source.checkpoint import Checkpoint, weights_of
from converters.source.checkpoint import read_json as read_object
from converters.source.config import Config
from converters.source.folders import followed, unlisted_shards
from converters.source.safetensors_table import ITEM_SIZES
from converters.source.source import Source, StoredTensor
from converters.source.stored import scale_names

# Matrices that DeepSeek keeps in BF16 in its FP8 releases (DeepSeek-V3/README_WEIGHTS.md).
_NOT_FP8 = (
    "embed_tokens.weight", "head.weight", "mlp.gate.weight", "eh_proj.weight",
    "indexer.weights_proj.weight",
)  # fmt: skip


class ConfigOnly(Checkpoint):
    """A checkpoint without weights; every tensor that its family takes is there by name."""

    def __init__(self, source: Path) -> None:
        """Read the config; raise ConvertError if it is missing, malformed or of no family."""
        Source.__init__(self)  # and not Checkpoint's, which opens shards
        file = source / "config.json" if source.is_dir() else source
        self._raw = read_object(file)
        # A config under another name stands for no folder: what lies beside it is not its own.
        self.folder = file.parent if file.name == "config.json" else file.with_suffix("")
        config = Config(self._raw, file.name)
        family = find_family(config)
        self._fp8 = config.section("quantization_config").values.get("quant_method") == "fp8"
        self._f32_norms = config.has("index_n_heads")  # V3.2; BF16 in all releases before
        self._release_dtype = getattr(family, "release_dtype", None)
        self._config = config
        if self._release_dtype is None:
            self._add_draft_layer(config)
        elif config.count("num_nextn_predict_layers", 0, least=0):
            self._add("mtp.0.e_proj.weight", (config.count("hidden_size"),) * 2)
            self._add_all(config, draft_family(family).tensors)
        self._add_all(config, family.tensors)

    @property
    def has_weights(self) -> bool:
        """Say no."""
        return False

    @property
    def has_tokenizer(self) -> bool:
        """Say whether the tokenizer's files are there, without which its metadata is unknown."""
        return (self.folder / "tokenizer.json").is_file()

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object beside the config, or the config itself."""
        return self._raw if name == "config.json" else super().read_json(name)

    def read_into(self, tensor: StoredTensor, start: int, target: memoryview) -> None:
        """Refuse: there are no bytes."""
        raise ConvertError(f"{self.folder} has no weights: download them")

    def same_bytes(self, first: str, second: str) -> bool:
        """Say that copies are equal, as they are in every release."""
        return True

    def _add_all(self, config: Config, tensors: Callable[..., Iterable[Target | Dropped]]) -> None:
        for one in tensors(config, self, True):
            for piece in one.pieces if isinstance(one, Target) else ():
                self._add(piece.source, piece.shape)

    def _add_draft_layer(self, config: Config) -> None:
        if not config.count("num_nextn_predict_layers", 0, least=0):
            return
        prefix = f"model.layers.{config.count('num_hidden_layers')}"
        hidden = config.count("hidden_size")
        table = (config.count("vocab_size"), hidden)
        for name in ("model.embed_tokens", "lm_head"):
            self._add(f"{name}.weight", table)
        for name in ("embed_tokens", "shared_head.head"):
            self._add(f"{prefix}.{name}.weight", table)
        self._add(f"{prefix}.eh_proj.weight", (hidden, 2 * hidden))

    def _add(self, name: str, shape: tuple[int, ...]) -> None:
        if self._release_dtype is not None:
            self._add_v4(name, shape, self._release_dtype(self._config, name, shape))
            return
        dtype = self._dtype(name, shape)
        self._store(name, dtype, shape)
        if dtype == "F8_E4M3":
            self._store(scale_names(name)[0], "F32", scale_shape(shape))

    def _add_v4(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        scale = scale_names(name)[1]
        if dtype == "FP4":
            rows, cols = shape
            self._store(name, "I8", (rows, cols // 2))
            self._store(scale, "F8_E8M0", (rows, cols // FP4_BLOCK))
            return
        self._store(name, dtype, shape)
        if dtype == "F8_E4M3":
            self._store(scale, "F8_E8M0", scale_shape(shape))

    def _store(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        size = math.prod(shape) * ITEM_SIZES[dtype]
        self.tensors[name] = StoredTensor(name, dtype, shape, self.folder, 0, size)

    def _dtype(self, name: str, shape: tuple[int, ...]) -> str:
        if name.endswith("e_score_correction_bias") or (self._f32_norms and "norm" in name):
            return "F32"
        return (
            "F8_E4M3" if self._fp8 and len(shape) == 2 and not name.endswith(_NOT_FP8) else "BF16"
        )


def open_source(source: Path) -> Checkpoint:
    """Open a checkpoint, or what config.json alone tells of one."""
    source = followed(source)
    if source.is_file():
        return ConfigOnly(source)
    weights = weights_of(source) or unlisted_shards(source)
    if not weights and (source / "config.json").is_file():
        return ConfigOnly(source)
    return Checkpoint(source)
