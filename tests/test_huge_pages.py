"""Processes that hold weights ask for huge pages, and get them where the kernel lends any."""

import platform
from pathlib import Path

import pytest

from localseek.engine.client import Engine
from localseek.engine.protocol import LoadOptions
from localseek.huge_pages import with_huge_pages

SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")


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


def test_buffers_of_the_engine_lie_in_huge_pages(nano_gguf):
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split("."))) < (2, 35):
        pytest.skip("no glibc that asks for huge pages")
    if not SWITCH.exists() or "[never]" in SWITCH.read_text():
        pytest.skip("the kernel lends no huge pages")
    with Engine(LoadOptions(str(nano_gguf), ctx=4096)) as engine:
        engine.load()
        lines = Path(f"/proc/{engine.pid}/smaps_rollup").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))
    assert kilobytes >= 2048
