"""The pickle inside a PyTorch checkpoint, read by an interpreter that can only describe tensors.

Takes the bytes of data.pkl, gives the names with the description of each tensor: storage, offset,
shape and strides. Knows the instructions that torch.save writes for a dict of tensors and nothing
else: no import, no call, no attribute. What a file builds is counted, so that a hostile one cannot
use up memory: values are shared, never copied, and nested ones are never walked.
Does not know zip files, nor where a storage lies.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 32_000_000  # of data.pkl; a tensor takes about 300
_MAX_STEPS = 1_000_000  # instructions, and so values; a tensor takes about 40
_MAX_CONTAINERS = 100_000  # dicts and lists, the largest values that one byte can make
_MAX_TEXT_BYTES = 4096  # of a name
_MAX_SIZE = 1 << 48  # of a dimension, a stride or an offset


class PickleError(Exception):
    """A pickle that describes anything but tensors; `str(error)` says what, without a subject."""


@dataclass(frozen=True)
class Storage:
    """A run of values under `key`, shared by the tensors that lie in it."""

    kind: str  # torch's name, such as BFloat16Storage
    key: str
    count: int  # values


@dataclass(frozen=True)
class StridedTensor:
    """A view of a storage; offset and strides count values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Symbol:
    """An imported name; only a few can be called, and none is ever looked up."""

    module: str
    name: str


_REBUILD_TENSOR = _Symbol("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = _Symbol("torch._utils", "_rebuild_parameter")
_ORDERED_DICT = _Symbol("collections", "OrderedDict")
_MARK = object()


def read_tensors(data: bytes) -> dict[str, StridedTensor]:
    """Return the tensors of a state dict; raise PickleError for whatever else the bytes mean."""
    try:
        value = _Machine(data).run()
    except (IndexError, struct.error, UnicodeDecodeError, TypeError, ValueError) as error:
        raise PickleError("is broken: download it again") from error
    if not isinstance(value, dict):
        raise PickleError("holds no dict of tensors")
    for name, tensor in value.items():
        if not name.isprintable() or not isinstance(tensor, StridedTensor):
            raise PickleError(
                f"holds {name[:80]!r}, which is not a tensor: only weights can be converted"
            )
    return value


class _Machine:
    """The pickle machine: a stack, a memo and the place in the bytes."""

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_BYTES:
            raise PickleError(f"has {len(data)} bytes, above {MAX_BYTES}")
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._containers = 0

    def run(self) -> Any:
        """Run to the end and return the value left."""
        for _ in range(_MAX_STEPS):
            code = self._take(1)[0]
            if code == 0x2E:  # STOP
                return self._stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise PickleError(f"has the instruction 0x{code:02x}, which tensors do not need")
            step(self)
        raise PickleError(f"has more than {_MAX_STEPS} instructions")

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise PickleError("ends too early: download it again")
        found = self._data[self._at : end]
        self._at = end
        return found

    def _number(self, layout: str) -> int:
        return int(struct.unpack(layout, self._take(struct.calcsize(layout)))[0])

    def _text(self, count: int) -> str:
        if count > _MAX_TEXT_BYTES:
            raise PickleError(f"holds a text of {count} bytes, above {_MAX_TEXT_BYTES}")
        return self._take(count).decode()

    def _line(self) -> str:
        end = self._data.index(b"\n", self._at)
        return self._take(end + 1 - self._at)[:-1].decode()

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _contain(self, value: Any) -> None:
        self._containers += 1
        if self._containers > _MAX_CONTAINERS:
            raise PickleError(f"makes more than {_MAX_CONTAINERS} dicts and lists")
        self._stack.append(value)

    def _pop_to_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise PickleError("is broken: download it again")
        found = self._stack[at + 1 :]
        del self._stack[at:]
        return found

    def _pop_tuple(self, count: int) -> tuple[Any, ...]:
        if count > len(self._stack):
            raise IndexError
        found = tuple(self._stack[len(self._stack) - count :])
        del self._stack[len(self._stack) - count :]
        return found

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise PickleError("is broken: download it again")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):  # a tuple's hash would walk what is nested in it
                raise PickleError("has a key that is not a string")
            target[key] = value

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise PickleError("is broken: download it again")
        target.extend(items)

    def _import(self, module: str, name: str) -> None:
        symbol = _Symbol(module, name)
        storage = module == "torch" and name.endswith("Storage")
        if not storage and symbol not in (_REBUILD_TENSOR, _REBUILD_PARAMETER, _ORDERED_DICT):
            raise PickleError(
                f"imports {f'{module}.{name}'[:80]!r}, which is not a tensor: "
                "do not trust this file"
            )
        self._push(symbol)

    def _import_from_stack(self) -> None:
        module, name = self._pop_tuple(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("is broken: download it again")
        self._import(module, name)

    def _load_storage(self) -> None:
        found = self._stack.pop()
        if not isinstance(found, tuple) or len(found) != 5 or found[0] != "storage":
            raise PickleError("refers to something outside that is no storage")
        _, kind, key, _, count = found
        if not isinstance(kind, _Symbol) or not isinstance(key, str) or not _is_size(count):
            raise PickleError("describes a broken storage")
        self._push(Storage(kind.name, key, count))

    def _call(self) -> None:
        function, arguments = self._pop_tuple(2)
        if not isinstance(arguments, tuple) or not isinstance(function, _Symbol):
            raise PickleError("calls what is no function")
        if function == _REBUILD_TENSOR and len(arguments) >= 4:
            self._push(_tensor(*arguments[:4]))
        elif function == _REBUILD_PARAMETER and arguments:
            self._push(arguments[0])
        elif function == _ORDERED_DICT and not arguments:
            self._contain({})
        else:
            raise PickleError(f"calls {function.module}.{function.name} in an unknown way")

    def _set_state(self) -> None:
        """Drop the attributes of a state dict: they number the modules' versions."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            raise PickleError("sets attributes of what is no dict")

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise PickleError("is broken: download it again")
        self._push(self._memo[index])

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_SIZE


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> StridedTensor:
    sizes = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    if not isinstance(storage, Storage) or not sizes:
        raise PickleError("describes a broken tensor")
    if len(shape) > 8 or not all(map(_is_size, (offset, *shape, *strides))):
        raise PickleError("describes a tensor of impossible size")
    return StridedTensor(storage, offset, shape, strides)


# The instructions of protocols 2 to 4 that a dict of tensors needs, by their code.
_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: lambda m: _check_protocol(m._number("<B")),
    0x95: lambda m: None if m._take(8) else None,  # FRAME: a length that matters to streams only
    0x28: lambda m: m._push(_MARK),
    0x4E: lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    0x4A: lambda m: m._push(m._number("<i")),
    0x4B: lambda m: m._push(m._number("<B")),
    0x4D: lambda m: m._push(m._number("<H")),
    0x8A: lambda m: m._push(int.from_bytes(m._take(m._number("<B")), "little", signed=True)),
    0x47: lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    0x58: lambda m: m._push(m._text(m._number("<I"))),
    0x8C: lambda m: m._push(m._text(m._number("<B"))),
    0x7D: lambda m: m._contain({}),
    0x5D: lambda m: m._contain([]),
    0x29: lambda m: m._push(()),
    0x85: lambda m: m._push(m._pop_tuple(1)),
    0x86: lambda m: m._push(m._pop_tuple(2)),
    0x87: lambda m: m._push(m._pop_tuple(3)),
    0x74: lambda m: m._push(tuple(m._pop_to_mark())),
    0x73: lambda m: m._set_items(list(m._pop_tuple(2))),
    0x75: lambda m: m._set_items(m._pop_to_mark()),
    0x61: lambda m: m._append(list(m._pop_tuple(1))),
    0x65: lambda m: m._append(m._pop_to_mark()),
    0x71: lambda m: m._put(m._number("<B")),
    0x72: lambda m: m._put(m._number("<I")),
    0x94: lambda m: m._put(len(m._memo)),
    0x68: lambda m: m._get(m._number("<B")),
    0x6A: lambda m: m._get(m._number("<I")),
    0x63: lambda m: m._import(m._line(), m._line()),
    0x93: lambda m: m._import_from_stack(),
    0x51: lambda m: m._load_storage(),
    0x52: lambda m: m._call(),
    0x62: lambda m: m._set_state(),
}


def _check_protocol(protocol: int) -> None:
    if protocol not in (2, 3, 4, 5):
        raise PickleError(f"is of protocol {protocol}, not supported")
