import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
NAMED = re.compile(r"`(tests/\w+/test_\w+\.py)`((?:[,;]? `test_\w+`)+)")


def test_every_test_that_the_page_of_faults_names_is_there():
    lines = PAGE.read_text("utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| fault ")]
    assert len(rows) > 25
    for row in rows:
        last = row.rstrip(" |").rpartition("|")[2]
        found = NAMED.findall(last)
        assert found, f"names no test: {row}"
        for file, names in found:
            source = (ROOT / file).read_text("utf-8")
            for name in re.findall(r"`(test_\w+)`", names):
                assert re.search(rf"^(?:async )?def {name}\(", source, re.M), f"{file}: {name}"


def test_every_test_of_faults_is_named_on_the_page():
    page = PAGE.read_text("utf-8")
    for file in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        if file == Path(__file__):
            continue
        for name in re.findall(r"^def (test_\w+)\(", file.read_text("utf-8"), re.M):
            assert f"`{name}`" in page, name
