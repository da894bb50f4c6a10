"""What a GGUF file says about its model.

Takes a path (of the first part, if the model is split), gives a frozen `GGUFInfo`. All parts are
checked by header. Whether llama.cpp can run it is told by `runnable`.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from localseek.errors import ModelError
from localseek.gguf.head import Scalar
from localseek.gguf.header import StoredArray, Tensor, Value, read_header

FILE_TYPES = {  # general.file_type; from llama.h, enum llama_ftype
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip
SPLIT_NAME = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


@dataclass(frozen=True)
class GGUFInfo:
    """A model file's facts; `parts` lists its files, `missing` the parts that are not there."""

    path: Path
    parts: tuple[Path, ...]
    missing: tuple[Path, ...]
    size_bytes: int
    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]

    def get(self, key: str) -> Scalar | None:
        """Give a single metadata value, None when it is absent or an array."""
        value = self.metadata.get(key)
        return None if isinstance(value, tuple | StoredArray) else value

    def array(self, key: str) -> tuple[Scalar, ...]:
        """Give an array from the metadata, read from the file if it is long; () when absent."""
        value = self.metadata.get(key)
        if isinstance(value, StoredArray):
            return value.read()
        return value if isinstance(value, tuple) else ()

    def count(self, key: str) -> int:
        """Give a count under the architecture's prefix, 0 when it is absent; no negatives."""
        value = self.get(f"{self.architecture}.{key}")
        if value is None:
            return 0
        if type(value) is not int or value < 0:
            raise ModelError(f"{self.path}: {self.architecture}.{key} is {value!r}, not a count.")
        return value

    def _text(self, key: str) -> str:
        value = self.get(key)
        return value if isinstance(value, str) else ""

    @property
    def architecture(self) -> str:
        """Name the architecture as llama.cpp knows it."""
        name = self._text("general.architecture")
        return name if name.isprintable() else ""

    @property
    def name(self) -> str:
        """Give the model's own name, or the file's."""
        return self._text("general.name") or self.path.stem

    @property
    def chat_template(self) -> str:
        """Give the jinja source of the chat template, "" when there is none."""
        return self._text("tokenizer.chat_template")

    @property
    def n_params(self) -> int:
        """Count the weights."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def context_length(self) -> int:
        """Give the tokens that the model was trained to see."""
        return self.count("context_length")

    @property
    def block_count(self) -> int:
        """Count the layers, the multi-token prediction layer included."""
        return self.count("block_count")

    @property
    def nextn_layers(self) -> int:
        """Count the multi-token prediction layers."""
        return self.count("nextn_predict_layers")

    @property
    def experts(self) -> tuple[int, int]:
        """Give (routed experts a layer, used for a token); (0, 0) for a dense model."""
        used = [n for n in self.array(f"{self.architecture}.expert_used_count") if type(n) is int]
        return self.count("expert_count"), max(used, default=self.count("expert_used_count"))

    @property
    def type_name(self) -> str:
        """Name the quantization: what the file says, or else the type with most weights."""
        stated = self.get("general.file_type")
        if isinstance(stated, int) and stated in FILE_TYPES:
            return FILE_TYPES[stated]
        weights: Counter[str] = Counter()
        for tensor in self.tensors:
            weights[tensor.type] += tensor.elements
        return weights.most_common(1)[0][0] if weights else "?"


def read_info(path: Path) -> GGUFInfo:
    """Read and check the GGUF at `path` and its other parts; raises ModelError with the reason."""
    header = read_header(path)
    parts, missing = _other_parts(path, header.metadata)
    others = [read_header(part) for part in parts]
    for part, other in zip(parts, others, strict=True):
        _check_part(part, other.metadata)
    tensors = header.tensors + tuple(t for other in others for t in other.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ModelError(f"{path} is damaged: two of its parts hold the same tensor.")
    return GGUFInfo(
        path=path,
        parts=(path, *parts),
        missing=missing,
        size_bytes=header.size_bytes + sum(other.size_bytes for other in others),
        version=header.version,
        metadata=header.metadata,
        tensors=tensors,
    )


def is_later_part(path: Path) -> bool:
    """Tell whether a file name says: part of a split model, not its first."""
    match = SPLIT_NAME.match(path.name)
    return match is not None and int(match["number"]) > 1


def _other_parts(path: Path, metadata: dict[str, Value]) -> tuple[list[Path], tuple[Path, ...]]:
    count, number = metadata.get("split.count", 1), metadata.get("split.no", 0)
    if not isinstance(count, int) or not isinstance(number, int) or not 0 <= number < max(count, 1):
        raise ModelError(f"{path} is damaged: it says part {number!r} of {count!r}.")
    if count <= 1:
        return [], ()
    match = SPLIT_NAME.match(path.name)
    if not match or int(match["count"]) != count:
        raise ModelError(
            f"{path} is one of {count} parts, but its name does not say so.",
            f"Name the parts NAME-00001-of-{count:05}.gguf and so on.",
        )
    siblings = [
        path.with_name(f"{match['stem']}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)
    ]
    if number != 0:
        raise ModelError(f"{path} is part {number + 1} of {count}.", f"Open {siblings[0]}.")
    there = [part for part in siblings[1:] if part.is_file()]
    return there, tuple(part for part in siblings[1:] if not part.is_file())


def _check_part(path: Path, metadata: dict[str, Value]) -> None:
    """Raise ModelError if a part is not the one that its name says: llama.cpp only says numbers."""
    match = SPLIT_NAME.match(path.name)
    said = metadata.get("split.no")
    if match is None or said != int(match["number"]) - 1:
        what = f"part {said + 1}" if isinstance(said, int) else "not a part of a model"
        raise ModelError(
            f"{path} is {what} by what it holds.",
            "Give the parts their names back, or get them again.",
        )
