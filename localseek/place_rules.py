"""The user's own rules: which tensors lie on which device, whatever is decided for the rest."""

import re
from collections.abc import Mapping, Sequence

from localseek.errors import UsageError
from localseek.weights import ModelShape


def moved_parts(
    shape: ModelShape, rules: Sequence[tuple[str, str]], devices: Mapping[str, str]
) -> dict[str, str]:
    """Give the device of each tensor that the user's rules match; the first rule counts.

    `devices` are the names that exist, by their lower case. Raises UsageError for a rule that is
    no regular expression, matches nothing, or names no device.
    """
    layers = [part for layer in shape.layers for part in (*layer.always, *layer.experts)]
    names = {part.name for part in (*shape.input, *shape.output, *layers)}
    moved: dict[str, str] = {}
    for rule, device in rules:
        if device.lower() not in devices:
            there = ", ".join(devices.values())
            raise UsageError(f"--place: there is no device {device!r}.", f"There is: {there}.")
        try:
            pattern = re.compile(rule)
        except re.error as error:
            raise UsageError(f"--place: {rule!r} is no regular expression: {error}.") from error
        if re.search(r"\(\?[^:=!]|\\[AZ]", rule):  # llama.cpp's are ECMAScript's
            raise UsageError(f"--place: {rule!r} uses what only Python's expressions know.")
        found = [name for name in names if pattern.search(name)]
        if not found:
            raise UsageError(
                f"--place: {rule!r} matches no tensor.", "`localseek models show` lists them."
            )
        for name in found:
            moved.setdefault(name, devices[device.lower()])
    return moved
