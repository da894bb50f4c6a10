from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from converters import ConvertError, ConvertOptions, convert
from converters.writing import writer


def test_a_second_conversion_is_refused_until_the_first_has_its_final_name(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, refusals = tmp_path / "model.gguf", writer.verify_file, []

    def verify_while_another_starts(partial: Path, plan: Any) -> None:
        monkeypatch.setattr(writer, "verify_file", real)
        try:
            convert(tiny, out)
        except ConvertError as error:
            refusals.append(str(error))
        real(partial, plan)

    monkeypatch.setattr(writer, "verify_file", verify_while_another_starts)
    convert(tiny, out)
    assert refusals == [f"another conversion is writing {out}.partial"]
    assert out.read_bytes()[:4] == b"GGUF"


def test_a_conversion_that_ends_before_the_lock_is_left_alone(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, journal = tmp_path / "model.gguf", tmp_path / "model.gguf.partial.journal"
    real = fcntl.flock
    journal.write_bytes(b"")

    def lock_late(file: int, operation: int) -> None:
        out.write_bytes(b"finished by another")
        journal.unlink()
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with pytest.raises(ConvertError, match="another conversion is writing"):
        convert(tiny, out, ConvertOptions(force=True))
    assert out.read_bytes() == b"finished by another"


def test_the_next_conversion_keeps_what_it_began_after_the_rename(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, partial, real = tmp_path / "model.gguf", tmp_path / "model.gguf.partial", os.replace

    def rename_and_begin_again(old: Path, new: Path) -> None:
        real(old, new)
        partial.write_bytes(b"begun by another")

    monkeypatch.setattr(os, "replace", rename_and_begin_again)
    convert(tiny, out)
    assert partial.read_bytes() == b"begun by another"
