from __future__ import annotations

from pathlib import Path

import fuzzing
import pytest


@pytest.mark.parametrize("first", [0, 100_000])
def test_hostile_checkpoints_end_in_a_file_or_in_one_line(tmp_path: Path, first: int) -> None:
    account = fuzzing.run_cases(fuzzing.make_base(tmp_path / "base"), range(first, first + 120))
    assert account["defects"] == []
    assert account["refused"] > 50
    assert account["converted"] > 10  # the mutations are near enough to good files to get far
