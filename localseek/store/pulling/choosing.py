"""Which files of a repository are a model: GGUF files by model and type, or a checkpoint's own.

Takes a list of files and what the user asked for, gives the files to download. Split files count as
one model; a projector for pictures (mmproj) and an importance matrix are none. Knows nothing about
networks or memory.
"""

import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from localseek.errors import LocalseekError, UsageError
from localseek.gguf.info import SPLIT_NAME
from localseek.store.pulling.remote import RemoteFile, brief
from localseek.system.sizes import rough_size

NO_MODEL = re.compile(r"mmproj|imatrix", re.IGNORECASE)
TYPE = re.compile(
    r"(?<![A-Za-z0-9])("
    r"(?:UD-)?(?:IQ\d_(?:XXS|XS|NL|XL|S|M)|Q\d_K_(?:XXL|XL|L|M|S)|Q\d_K|Q\d_\d(?:_\d_\d)?|Q\d)"
    r"|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32|DS_Q\d)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
USUAL = "Q4_K_M"  # what an example names where it is there
UNQUANTIZED = ("F32", "FP32", "F16", "FP16", "BF16")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")
UNLISTED = (r"model-\d{5}-of-\d{5}\.safetensors", r"pytorch_model-\d{5}-of-\d{5}\.bin")
BESIDE = ("*.json", "*.jinja", "LICENSE*", "LICENCE*")  # a checkpoint's small files
MOST_NAMED = 40  # models in one message
MOST_INDEX_BYTES = 100_000_000  # V3's has 9 MB


@dataclass(frozen=True, slots=True)
class Model:
    """A GGUF model of a repository: one file, or the parts of a split one in their order."""

    name: str  # of the file, without its part's number and .gguf
    type: str  # as the name says, in capitals; "" where it says none
    files: tuple[RemoteFile, ...]
    lacking: int = 0  # parts that the repository does not hold

    @property
    def size_bytes(self) -> int:
        """Give the bytes of all parts."""
        return sum(one.size_bytes for one in self.files)

    @property
    def quantized(self) -> bool:
        """Tell whether its name says a quantized type, or none."""
        return self.type not in UNQUANTIZED


def group_models(files: Iterable[RemoteFile]) -> list[Model]:
    """Group GGUF files into models, the smallest first."""
    parts: dict[tuple[str, int], dict[int, RemoteFile]] = {}  # (name, parts) → number → part
    for file in files:
        if not file.name.endswith(".gguf") or NO_MODEL.search(PurePosixPath(file.name).name):
            continue
        split = SPLIT_NAME.match(file.name)
        name = split["stem"] if split else file.name.removesuffix(".gguf")
        key = (name, int(split["count"]) if split else 1)
        parts.setdefault(key, {})[int(split["number"]) if split else 1] = file
    models = [
        Model(
            name,
            type_of(name),
            tuple(found[number] for number in sorted(found)),
            max(0, count - len(found)),
        )
        for (name, count), found in parts.items()
    ]
    return sorted(models, key=lambda model: (model.size_bytes, model.name))


def type_of(name: str) -> str:
    """Give the type that a model's name says, or its folder's, "" for none."""
    for part in reversed(PurePosixPath(name).parts):
        if found := TYPE.findall(part):
            return str(found[-1]).upper()
    return ""


def choose(
    repository: str, models: Sequence[Model], type_name: str = "", pattern: str = ""
) -> list[Model]:
    """Give the models of a type, or whose files match a pattern; raises UsageError for none."""
    if pattern:
        chosen = [m for m in models if any(fnmatch.fnmatch(f.name, pattern) for f in m.files)]
        if not chosen:
            raise UsageError(f"No GGUF file of {repository} matches {pattern}.", _offer(models))
        return chosen
    if not type_name:
        return list(models)
    wanted = type_name.upper()
    chosen = [model for model in models if model.type == wanted]
    chosen = chosen or [model for model in models if model.type == f"UD-{wanted}"]
    if not chosen:
        raise UsageError(f"{repository} holds no {type_name}.", _offer(models))
    return chosen


def only_one(repository: str, models: Sequence[Model], listed: bool = False) -> Model:
    """Give the one model that is left; raises UsageError that names several, unless `listed`."""
    if len(models) == 1:
        return models[0]
    middle = models[len(models) // 2]
    middle = next((model for model in models if model.type == USUAL), middle)
    by_type = _typed(models)
    which = f":{middle.type}" if by_type else f" --file '{middle.name[:100]}*'"
    names = "" if listed else f": {_listed(models)}"
    raise UsageError(
        f"{repository} holds {len(models)} models{names}.",
        f"Write which, such as localseek pull {repository}{which}, or --fit for the best that "
        "fits here.",
    )


def _typed(models: Sequence[Model]) -> bool:
    """Tell whether types tell the models apart."""
    return all(m.type for m in models) and len({m.type for m in models}) == len(models)


def _offer(models: Sequence[Model]) -> str:
    return f"It has: {_listed(models)}."


def _listed(models: Sequence[Model]) -> str:
    """Name models by their types where these tell them apart, with sizes."""
    by_type = _typed(models)
    words = [
        f"{m.type if by_type else brief(m.name)} ({rough_size(m.size_bytes)})"
        for m in models[:MOST_NAMED]
    ]
    if len(models) > MOST_NAMED:
        words.append(f"and {len(models) - MOST_NAMED:,} more")
    return ", ".join(words) or "no GGUF models"


def whole(repository: str, model: Model) -> Model:
    """Give the model back; raises LocalseekError if the repository lacks parts of it."""
    if model.lacking:
        raise LocalseekError(
            f"{repository} lacks {model.lacking} of {len(model.files) + model.lacking} parts of "
            f"{brief(model.name)}.",
            "It may still be uploaded: try again later, or choose another.",
        )
    return model


def checkpoint_files(
    repository: str, files: Sequence[RemoteFile], read: Callable[[RemoteFile], bytes]
) -> tuple[tuple[RemoteFile, ...], tuple[RemoteFile, ...]]:
    """Give the small files of a checkpoint and its shards; both empty where there is none.

    Subfolders hold other formats and are left out. `read` fetches the index, which names the
    shards; raises LocalseekError if it names what is not there.
    """
    here = {file.name: file for file in files if "/" not in file.name}
    if "config.json" not in here:
        return (), ()
    shards = next(filter(None, (_shards(repository, here, n, read) for n in (0, 1))), ())
    if not shards:
        return (), ()
    safetensors = shards[0].name.endswith(".safetensors")
    other = INDEXES[1] if safetensors else INDEXES[0]
    small = tuple(
        file for name, file in sorted(here.items())
        if name != other and any(fnmatch.fnmatch(name, pattern) for pattern in BESIDE)
    )  # fmt: skip
    return small, shards


def _shards(
    repository: str, here: dict[str, RemoteFile], kind: int, read: Callable[[RemoteFile], bytes]
) -> tuple[RemoteFile, ...]:
    if INDEXES[kind] in here:
        names = _indexed(repository, here[INDEXES[kind]], read)
        missing = [name for name in names if name not in here]
        if missing:
            raise LocalseekError(
                f"{repository} lacks {brief(missing[0])}, which its {INDEXES[kind]} names.",
                "It may still be uploaded: try again later.",
            )
        return tuple(here[name] for name in names)
    if SINGLES[kind] in here:
        return (here[SINGLES[kind]],)
    found = sorted(name for name in here if re.fullmatch(UNLISTED[kind], name))
    return tuple(here[name] for name in found)


def _indexed(
    repository: str, index: RemoteFile, read: Callable[[RemoteFile], bytes]
) -> list[str]:
    if index.size_bytes > MOST_INDEX_BYTES:
        raise LocalseekError(f"{index.name} of {repository} is too large for an index.")
    try:
        return sorted({str(shard) for shard in json.loads(read(index))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LocalseekError(f"{index.name} of {repository} is not an index of shards.") from error
