"""generation_config.json → what the publisher recommends for sampling, as `general.sampling.*`.

Takes a checkpoint folder, gives metadata and a warning for each value that cannot be used: the
recommendation is a help, and a wrong one does not stop a conversion. `do_sample: false` is greedy
decoding and becomes temperature 0; a negative top_k is "off" and becomes 0.
"""

from converters.errors import ConvertError
from converters.layout import Described, Value
from converters.source.checkpoint import Checkpoint

KEYS = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
_LARGEST = 2**31 - 1  # llama.cpp reads top_k as int32; no other value comes near


FILE = "generation_config.json"


def sampling_metadata(checkpoint: Checkpoint) -> Described:
    """Return the recommended sampling; nothing where the folder has no generation_config.json."""
    if not (checkpoint.folder / FILE).is_file():
        return Described({})
    try:
        values = checkpoint.read_json(FILE)
    except ConvertError as error:
        return Described({}, (f"no recommended sampling is written: {error}",))
    found: dict[str, Value] = {}
    warnings = []
    for name, key in KEYS.items():
        value = values.get(name)
        if value is None:
            continue
        # The comparison is also false for NaN, and holds for whole numbers beyond any float.
        kinds = (int,) if name == "top_k" else (int, float)
        if type(value) not in kinds or not abs(value) <= _LARGEST:
            warnings.append(f"{FILE}: {name} is {value!r}, not a number that can be used: left out")
            continue
        found[key] = max(0, int(value)) if name == "top_k" else float(value)
    if values.get("do_sample") is False:
        found["general.sampling.temp"] = 0.0
    return Described(found, tuple(warnings))
