"""Processes that hold weights ask for huge pages, and get them where the kernel lends any."""

from pathlib import Path

import pytest

from localseek import Engine
from localseek.options import Fixed, LoadOptions
from localseek.system.huge_pages import are_lent, with_huge_pages


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_the_wish_is_added_to_what_the_user_has_set(monkeypatch, given, wanted):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if given is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    monkeypatch.setenv("SOMETHING", "else")
    environment = with_huge_pages()
    assert environment["GLIBC_TUNABLES"] == wanted
    assert environment["SOMETHING"] == "else"


@pytest.mark.parametrize(
    ("kernel", "tunables", "lent"),
    [
        ("[always] madvise never", "", True),
        ("always madvise [never]", "glibc.malloc.hugetlb=1", False),
        ("always [madvise] never", "", False),
        ("always [madvise] never", "glibc.malloc.hugetlb=0", False),
        (None, "glibc.malloc.hugetlb=1", False),
    ],
)
def test_huge_pages_are_lent_where_the_kernel_does_and_the_process_asks(
    monkeypatch, tmp_path, kernel, tunables, lent
):
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    switch = tmp_path / "enabled"
    if kernel is not None:
        switch.write_text(kernel)
    assert are_lent(switch) is lent


@pytest.fixture
def asked(monkeypatch):
    """Stand for a process that has asked; skips where nothing would come of it."""
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    monkeypatch.setenv("LOCALSEEK_INSPECTABLE", "1")  # what it maps is read from here
    if not are_lent():
        pytest.skip("no huge pages here")


def mapped_and_huge(path: Path, wish: bool | None) -> tuple[bool, int]:
    """Tell whether an engine maps the file, and give its kilobytes in huge pages."""
    with Engine.of(LoadOptions(str(path), ctx=4096, mtp="off", fixed=Fixed(mmap=wish))) as engine:
        engine.load()
        process = Path(f"/proc/{engine.pid}")
        lines = (process / "smaps_rollup").read_text().splitlines()
        mapped = str(path) in (process / "maps").read_text()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))
    return mapped, kilobytes


@pytest.mark.usefixtures("asked")
def test_weights_and_buffers_of_the_engine_lie_in_huge_pages(nano_gguf):
    mapped, buffers = mapped_and_huge(nano_gguf, True)
    assert mapped and buffers >= 2048
    mapped, together = mapped_and_huge(nano_gguf, None)
    assert not mapped and together >= 8192
