"""What a batch was run with, beside its output: a later run with something else is refused.

Takes the model's file, the options and the input's digest, gives a small JSON file `OUT.manifest`
and, of two of them, the difference in words. Holds no prompt but the system prompt's digest.
"""

import contextlib
import errno
import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localseek.errors import LocalseekError, UsageError
from localseek.options import GenerationOptions
from localseek.system import private

SUFFIX = ".manifest.json"
FORMAT = 1
SAMPLE = 1 << 20  # bytes of a model's file, at its start and its end, that know it again


def manifest_path(output: Path) -> Path:
    """Give where the manifest of an output lies."""
    return output.with_name(output.name + SUFFIX)


def describe(options: GenerationOptions, model: Path, template: str) -> dict[str, Any]:
    """Give what decides the answers, as JSON can hold it, but for the rows: they have keys."""
    request = asdict(options.request)
    request.pop("messages")
    sampling = request.pop("sampling")
    form = sampling.pop("schema") + sampling.pop("grammar")
    chosen = {**request, **sampling, "ctx": options.load.ctx, "template": template}
    chosen |= {"system": _digest(options.system), "shape": _digest(form)}
    return {
        "format": FORMAT,
        "model": {"name": Path(options.model).name, "fingerprint": fingerprint(model)},
        "options": json.loads(json.dumps(chosen)),
    }


def fingerprint(path: Path) -> str:
    """Give a digest of a file's size, its beginning and its end."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(f"{size} ".encode())
        for at in (0, max(0, size - SAMPLE)):
            file.seek(at)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:32]


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say what two runs differ in, as parts of a sentence."""
    found = []
    if before["model"]["fingerprint"] != now["model"]["fingerprint"]:
        found.append(f"the model was {before['model']['name']}, is {now['model']['name']}")
    old, new = before["options"], now["options"]
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        if name in ("system", "shape"):
            words = {"system": "the system prompt", "shape": "the schema or grammar"}[name]
            found.append(f"{words} is another one")
        else:
            found.append(f"{name} was {json.dumps(old.get(name))}, is {json.dumps(new.get(name))}")
    return found


def read(output: Path) -> dict[str, Any] | None:
    """Give the manifest of an earlier run; None if there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(manifest_path(output).read_bytes())
        if found["format"] == FORMAT and found["options"].keys() and found["model"].keys():
            return dict(found)
    return None


def check(output: Path, now: dict[str, Any]) -> None:
    """Raise UsageError, naming the difference, if the output was begun with something else."""
    before = read(output)
    if before is not None and (found := differences(before, now)):
        raise UsageError(
            f"{output} was begun otherwise: {'; '.join(found[:4])}.",
            "Give another OUT, or --restart to begin again.",
        )


def write(output: Path, manifest: dict[str, Any]) -> None:
    """Keep the manifest, whole or not at all; raises LocalseekError if it cannot be written."""
    path = manifest_path(output)
    partial = path.with_name(path.name + ".new")
    try:
        private.make_like(output, partial)
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(manifest, indent=1) + "\n")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            partial.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise LocalseekError(
            f"{path} cannot be written: {error.strerror}.",
            "Make room and run the same command again." if full else "Give another OUT.",
        ) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16] if text else ""
