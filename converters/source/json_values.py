"""Parsed JSON that came from elsewhere, narrowed to the types that its reader expects.

Takes any value, gives it back typed or raises ConvertError. Does not know files or keys.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from converters.errors import ConvertError


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Say whether a value is a JSON object."""
    return isinstance(value, dict)


def objects(value: Any, what: str) -> list[dict[str, Any]]:
    """Return a list of JSON objects, empty for null; raise ConvertError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(map(is_object, value)):
        raise ConvertError(f"{what} is not a list of objects: download it again")
    return value
