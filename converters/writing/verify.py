"""A written file read back and compared with its plan, before it gets its final name.

Takes the path and the plan; reads the head with the independent reader and looks at the size.
Cheap by intent: tensor data is not read again, its values were checked as they were written.
"""

from __future__ import annotations

from pathlib import Path

from converters.errors import ConvertError
from converters.planning.plan import Plan
from converters.source.gguf_reader import read_head


def verify_file(path: Path, plan: Plan) -> None:
    """Raise ConvertError unless the file's head and size are what the plan says."""
    head = read_head(path)
    size = path.stat().st_size
    if size != plan.size_bytes:
        raise ConvertError(f"{path} has {size} bytes instead of {plan.size_bytes}")
    if len(head.metadata) != plan.n_metadata or len(head.entries) != len(plan.tensors):
        raise ConvertError(f"{path} was not written as planned: its counts differ")
    end = head.data_start
    for entry, tensor in zip(head.entries, plan.tensors, strict=True):
        start = head.data_start + entry.offset
        found = (entry.name, entry.shape, entry.kind, start)
        if found != (tensor.name, tensor.shape, int(tensor.kind), tensor.offset):
            raise ConvertError(f"{path} was not written as planned: {tensor.name} differs")
        if start % plan.alignment or start < end or start + tensor.size_bytes > size:
            raise ConvertError(f"{path} was not written as planned: {tensor.name} is misplaced")
        end = start + tensor.size_bytes
