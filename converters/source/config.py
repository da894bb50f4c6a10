"""config.json read strictly: a key is required, has a default, or must have an asserted value.

Takes the parsed JSON object. Gives typed values, or a ConvertError that names the key, so that an
unsupported model fails by name and not as gibberish. Knows the two spellings of the rope settings
(`rope_scaling`, and `rope_parameters` of transformers 5).
Does not know which keys a family needs.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from converters.errors import ConvertError

T = TypeVar("T", int, str, bool)

BETA_FAST, BETA_SLOW = 32.0, 1.0  # of YaRN: turns over the original context (its section 3.2)
_MAX_COUNT = 1 << 31  # GGUF stores these as uint32, llama.cpp reads many as int32
# Counts of things that a plan lists one by one: a hostile one must not fill the memory first.
_MAX_COUNTS = {
    "num_hidden_layers": 512,  # LLAMA_MAX_LAYERS
    "n_routed_experts": 1024,  # LLAMA_MAX_EXPERTS
    "num_attention_heads": 1 << 14,
    "vocab_size": 1 << 22,
}


@dataclass(frozen=True)
class Config:
    """A JSON object and the name to blame in messages."""

    values: dict[str, Any]
    origin: str = "config.json"

    def has(self, key: str) -> bool:
        """Say whether a key is there and not null."""
        return self.values.get(key) is not None

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        """Return a whole number of at least `least`."""
        value = self._get(key, default)
        if type(value) is not int or not least <= value < _MAX_COUNT:
            raise ConvertError(f"{self.origin}: {key} is {value!r}, not a number from {least}")
        if value > (most := _MAX_COUNTS.get(key, value)):
            raise ConvertError(f"{self.origin}: {key} is {value}, more than {most} cannot run")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number."""
        value = self._get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ConvertError(f"{self.origin}: {key} is {value!r}, not a number")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise ConvertError(f"{self.origin}: {key} is {value!r}, not true or false")
        return value

    def choice(self, key: str, allowed: Collection[T], default: T | None = None) -> T:
        """Return a value that must be one of `allowed`."""
        value: Any = self._get(key, default)
        for one in allowed:
            if type(value) is type(one) and value == one:
                return one
        names = ", ".join(str(one) for one in allowed)
        raise ConvertError(f"{self.origin}: {key} {value!r} is not supported (only {names})")

    def section(self, key: str) -> Config:
        """Return an object inside this one, empty where it is missing or null."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise ConvertError(f"{self.origin}: {key} is {value!r}, not an object")
        return Config(value or {}, f"{self.origin}: {key}")

    def _get(self, key: str, default: object) -> Any:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is None:
            raise ConvertError(f"{self.origin} lacks {key}: take the model's own config.json")
        return default


def architecture_of(config: Config) -> str:
    """Return the Hugging Face architecture, `architectures[0]`."""
    names = config.values.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ConvertError(f"{config.origin} names no architecture: take the model's own file")
    return names[0]


@dataclass(frozen=True)
class Yarn:
    """Long-context rope scaling by YaRN."""

    factor: float
    original_context: int
    mscale: float
    mscale_all_dim: float


@dataclass(frozen=True)
class Rope:
    """Rotary position settings; `yarn` is None for unscaled rope."""

    theta: float
    yarn: Yarn | None


def rope_settings(
    config: Config, kinds: Collection[str], theta: float | None = None
) -> tuple[str, float, Config]:
    """Return the scaling's kind, the base (default: `theta`), and the object with the rest."""
    key = "rope_parameters" if config.has("rope_parameters") else "rope_scaling"
    scaling = config.section(key)
    holder = scaling if scaling.has("rope_theta") else config
    kind_key = "rope_type" if scaling.has("rope_type") else "type"
    # An object without a type would be read by transformers as "default".
    kind = scaling.choice(kind_key, kinds, "default")
    return kind, holder.number("rope_theta", theta), scaling


def require_usual_betas(scaling: Config) -> None:
    """Raise ConvertError for YaRN with a beta_fast or beta_slow that llama.cpp would ignore."""
    fast, slow = scaling.number("beta_fast", BETA_FAST), scaling.number("beta_slow", BETA_SLOW)
    if (fast, slow) != (BETA_FAST, BETA_SLOW):
        raise ConvertError(
            f"{scaling.origin}: beta_fast {fast:g} and beta_slow {slow:g} are not supported: "
            f"llama.cpp always uses {BETA_FAST:g} and {BETA_SLOW:g}"
        )


def read_rope(config: Config) -> Rope:
    """Read rope settings in either spelling; raise ConvertError for a scaling other than YaRN."""
    kind, theta, scaling = rope_settings(config, ("default", "yarn"))
    if kind == "default":
        return Rope(theta, None)
    require_usual_betas(scaling)
    yarn = Yarn(
        factor=scaling.number("factor"),
        original_context=scaling.count("original_max_position_embeddings"),
        mscale=scaling.number("mscale", 0.0),
        mscale_all_dim=scaling.number("mscale_all_dim", 0.0),
    )
    if scaling.has("attention_factor"):
        raise ConvertError(f"{scaling.origin}: attention_factor is not supported")
    return Rope(theta, yarn)
