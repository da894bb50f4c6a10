"""generation_config.json → what the publisher recommends for sampling, as `general.sampling.*`.

Takes a checkpoint folder, gives metadata; a folder without the file gives none. `do_sample: false`
is greedy decoding and becomes temperature 0; a negative top_k is "off" and becomes 0.
"""

from converters.errors import ConvertError
from converters.layout import Value
from converters.source.checkpoint import Checkpoint

KEYS = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
_LARGEST = 2**31 - 1  # llama.cpp reads top_k as int32; no other value comes near


def sampling_metadata(checkpoint: Checkpoint) -> dict[str, Value]:
    """Return the recommended sampling; raise ConvertError for a value that is no finite number."""
    if not (checkpoint.folder / "generation_config.json").is_file():
        return {}
    values = checkpoint.read_json("generation_config.json")
    found: dict[str, Value] = {}
    for name, key in KEYS.items():
        value = values.get(name)
        if value is None:
            continue
        # The comparison is also false for NaN, and holds for whole numbers beyond any float.
        if type(value) not in (int, float) or not abs(value) <= _LARGEST:
            raise ConvertError(
                f"generation_config.json: {name} is {value!r}, not a number that can be used"
            )
        found[key] = max(0, int(value)) if name == "top_k" else float(value)
    if values.get("do_sample") is False:
        found["general.sampling.temp"] = 0.0
    return found
