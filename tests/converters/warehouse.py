"""A place that lends the shards of a checkpoint, for conversions that cannot see them all at once.

Takes a whole checkpoint and makes a folder beside it that holds its small files and headers only.
As a `Shards` it copies each shard there when it is taken, late and in any order if told so, and
removes it when it is given back. It keeps account: of what was asked, of how many shards lay there
at once, and, of each given back, whether the journal on the disk names all that was made of it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from converters import ConvertError, ConvertOptions
from converters.convert import plan_conversion
from converters.source.checkpoint import Checkpoint
from converters.writing.schedule import shards_of
from converters.writing.spans import covers, merged
from converters.writing.tiles import plan_runs

END = ".safetensors"


def head_of(shard: Path) -> bytes:
    """Return the bytes before a shard's data."""
    data = shard.read_bytes()
    return data[: 8 + int.from_bytes(data[:8], "little")]


def write_header(shard: Path, of: Path, identity: str | None = None, **more: object) -> Path:
    """Write the header that stands for `shard`, whose bytes are those of `of`."""
    data = of.read_bytes()
    known = hashlib.sha256(data).hexdigest() if identity is None else identity
    facts = json.dumps({"size_bytes": len(data), "identity": known, **more})
    path = shard.with_name(shard.name + ".header")
    path.write_bytes(head_of(of) + facts.encode())
    return path


def headers_only(whole: Path, folder: Path, identity: str | None = None) -> Path:
    """Make a folder with all of a checkpoint but its shards, of which the headers stand there."""
    folder.mkdir()
    for path in whole.iterdir():
        if path.suffix == END:
            write_header(folder / path.name, path, identity)
        else:
            shutil.copy2(path, folder / path.name)
    return folder


def tiles_of(whole: Path, options: ConvertOptions) -> dict[str, list[range]]:
    """Return the numbers of the tiles that each shard of a checkpoint has a part in."""
    found: dict[str, list[range]] = {path.name: [] for path in whole.glob("*" + END)}
    with Checkpoint(whole) as checkpoint:
        for run in plan_runs(plan_conversion(checkpoint, options, None), checkpoint):
            for shard in shards_of(run, checkpoint):
                found[shard.name].append(run.numbers)
    return found


def journaled(journal: Path) -> list[range]:
    """Return the tiles that the whole lines of a journal name."""
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    found = [json.loads(line[17:]).get("tiles", []) for line in lines]
    return merged([range(first, first + count) for spans in found for first, count in spans])


class Warehouse:
    """Lends the shards of `whole` to `folder`, in which `out` is being made."""

    def __init__(
        self, whole: Path, folder: Path, out: Path, options: ConvertOptions, fails: str = ""
    ) -> None:
        self.folder, self.peak = folder, 0
        self.asked: list[str] = []  # in the order that was told
        self.taken: list[str] = []
        self.returned: list[str] = []
        self.unsafe: list[str] = []  # given back before all that was made of them was safe
        self._whole, self._journal = whole, out.with_name(out.name + ".partial.journal")
        self._tiles = tiles_of(whole, options)
        self._fails = fails  # the first delivery of this shard
        self._thread = threading.current_thread()

    def order(self, names: Sequence[str]) -> None:
        assert not self.asked
        self.asked = list(names)

    def take(self, name: str) -> None:
        assert threading.current_thread() is self._thread
        assert name in self.asked and name not in self.taken
        if name == self._fails:
            self._fails = ""
            raise ConvertError(f"{name} did not arrive: is the line cut?")
        self.taken.append(name)
        arrives = threading.Thread(target=self._deliver, args=(name,))
        arrives.start()
        arrives.join()
        lying = sum(1 for _ in self.folder.glob("*" + END))
        self.peak = max(self.peak, lying)

    def give_back(self, name: str) -> None:
        assert threading.current_thread() is self._thread
        assert name not in self.returned
        self.returned.append(name)
        safe = journaled(self._journal)
        if not all(covers(safe, wanted) for wanted in self._tiles[name]):
            self.unsafe.append(name)
        (self.folder / name).unlink()

    def _deliver(self, name: str) -> None:
        """Copy as a download does: under another name, then under its own; once is enough."""
        there = self.folder / name
        if there.exists() and there.stat().st_size == (self._whole / name).stat().st_size:
            return
        coming = self.folder / f"{name}.incomplete"
        shutil.copyfile(self._whole / name, coming)
        coming.rename(self.folder / name)
