"""Rules over tensor names: the user's own read, and a whole placement said in llama.cpp's way."""

import re
from collections.abc import Mapping, Sequence

from localseek.errors import UsageError
from localseek.placing.shape import ModelShape
from localseek.system.machine import CPU

# llama.cpp's expressions are ECMAScript's: (?:…), (?=…) and (?!…) only, no \A and \Z, no possessive
# quantifiers, no classes that begin with ] or hold [:…:], no brace that does not repeat.
PYTHON_ONLY = re.compile(
    r"\(\?[^:=!]|\\[AZaNuU]|[*+?}]\+|\[\^?\]|\[\^?\[|(?<!\\)\{(?!\d+(?:,\d*)?\})"
)

LONG_RULE = 60  # characters of a rule that are shown


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
        except (re.error, RecursionError, OverflowError) as error:
            shown = rule if len(rule) <= LONG_RULE else f"{rule[:LONG_RULE]}…"
            raise UsageError(f"--place: {shown!r} is not a regular expression: {error}.") from error
        if other := PYTHON_ONLY.search(rule):
            raise UsageError(
                f"--place: {rule!r} has {other[0]!r}, which llama.cpp reads otherwise."
            )
        found = [name for name in names if pattern.search(name)]
        if not found:
            raise UsageError(
                f"--place: {rule!r} matches no tensor.", "`localseek models show` lists them."
            )
        for name in found:
            moved.setdefault(name, devices[device.lower()])
    return moved


def overrides(
    shape: ModelShape, layers: Sequence[str], experts: Sequence[Sequence[str]],
    moved: Mapping[str, str], rules: Sequence[tuple[str, str]],
) -> tuple[tuple[str, str], ...]:  # fmt: skip
    """Give the rules that make llama.cpp follow a placement; the first that matches counts.

    The user's come first, then experts that stay in memory while their layer does not.
    """
    found = list(rules)
    whole: list[int] = []
    for layer, device, names in zip(shape.layers, layers, experts, strict=True):
        away = [
            part.name
            for part, name in zip(layer.experts, names, strict=True)
            if name == CPU != device and part.name not in moved
        ]
        if away and len(away) == len(layer.experts):
            whole.append(layer.index)
        else:
            found += [(f"^{name.replace('.', '[.]')}$", CPU) for name in away]
    if whole:
        numbers = "|".join(str(index) for index in whole)
        found.append((rf"^blk[.]({numbers})[.]ffn_(gate|up|down|gate_up)_exps[.]", CPU))
    return tuple(found)
