import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import localseek

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the first example makes the embedded model and the others find it."""
    return tmp_path_factory.mktemp("home-of-examples")


def test_the_page_has_five_examples():
    assert len(EXAMPLES) == PAGE.count("```python") == 5


@pytest.mark.parametrize(("code", "printed"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_prints_what_the_page_says(code, printed, somewhere, tmp_path):
    (tmp_path / "program.py").write_text(code, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOCALSEEK_HOME": str(somewhere)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, printed), done.stderr
    reasoned = "ones: 8+7=15, carry 1 → 5" in done.stderr
    assert reasoned == ("sys.stderr" in code) and (reasoned or done.stderr == "")


def test_the_examples_are_typed(tmp_path):
    for number, (code, _) in enumerate(EXAMPLES):
        (tmp_path / f"example_{number}.py").write_text(code, "utf-8")
    wrong = 'from localseek import Engine\n\nEngine("nano").reply(5).anser\n'
    (tmp_path / "wrong.py").write_text(wrong, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path)], cwd=ROOT, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    told = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(told) == 2 and all("wrong.py:3" in line for line in told), done.stdout
    assert '"Reply" has no attribute "anser"' in done.stdout


def test_every_public_name_is_there_and_importing_the_package_imports_nothing_else():
    script = (
        "import sys; before = set(sys.modules); import localseek\n"
        "print(sorted(set(sys.modules) - before))\n"
        "print(sum(getattr(localseek, name) is not None for name in localseek.__all__))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["['localseek']", str(len(localseek.__all__))]
    assert set(localseek.__all__) <= set(dir(localseek))
    with pytest.raises(AttributeError, match="no attribute 'Motor'"):
        localseek.Motor  # noqa: B018
