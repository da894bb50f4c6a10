import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("converters", "localseek", "tui")
FORBIDDEN = {
    "converters": {"localseek", "tui", "torch", "transformers", "llama_cpp", "huggingface_hub"},
    "localseek": {"tui", "converters", "torch", "transformers", "textual"},
    "tui": {"llama_cpp", "converters", "torch", "transformers", "huggingface_hub"},
}
# The one thing of the runtime that a conversion knows: the reader of GGUF heads.
SHARED = "localseek.gguf.head"
# The command that starts another package may import it; training may use torch.
ALLOWED = {
    "localseek/api/models.py": {"converters"},
    "localseek/commands/app.py": {"tui"},
    "localseek/commands/convert.py": {"converters"},
    "localseek/commands/parts/convert_table.py": {"converters"},
    "localseek/commands/parts/converting.py": {"converters"},
    "localseek/commands/plan.py": {"converters"},
    "localseek/commands/pull.py": {"converters"},
    "localseek/commands/library/pull_convert.py": {"converters"},
    "localseek/commands/library/verify.py": {"converters"},
}
TRAINING = {"model", "muon", "train", "export", "data", "vocabulary"}
# All of the engine's rooms that others know: plain values, and what a log says.
BESIDE_THE_API = {f"localseek.engine.process.{name}" for name in ("deaths", "measurement", "rpc")}
ONE_DOOR = {
    "llama_cpp": "localseek/engine/llama/",
    "huggingface_hub": "localseek/store/hub/",
    "sqlcipher3": "localseek/store/history/cipher.py",
    "cryptography": "localseek/store/sealing.py",
    "keyring": "localseek/system/keyrings.py",
}


def sources() -> list[Path]:
    return sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    name = path.relative_to(ROOT).as_posix()
    wrong = imported(path) & FORBIDDEN[name.split("/")[0]] - ALLOWED.get(name, set())
    if path.parent.name == "nano" and path.stem in TRAINING:
        wrong -= {"torch"}
    if name.startswith("converters/") and from_localseek(path) == {SHARED}:
        wrong -= {"localseek"}
    assert not wrong


def from_localseek(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    modules = {
        f"{node.module}.{alias.name}" if node.module == "localseek.gguf" else node.module
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    return {module for module in modules if module.split(".")[0] == "localseek"}


def test_the_engine_is_reached_through_the_api_alone():
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("localseek/engine/", "converters/")):
            continue
        used = {m for m in from_localseek(path) if m.startswith("localseek.engine")}
        if name.startswith("localseek/api/"):
            rooms = {module.rpartition(".")[0] for module in used}
            assert rooms <= {"localseek.engine", "localseek.engine.process"}, name
        else:
            assert used <= BESIDE_THE_API, name
    asking = ("commands/parts/session", "commands/bench", "serve/dispatch", "bench/rounds")
    for name in (*(f"localseek/{one}.py" for one in asking), "tui/ports.py"):
        assert "localseek" in from_localseek(ROOT / name), f"{name} takes its engine elsewhere"


def test_a_converter_is_imported_by_the_api_when_it_is_needed_only():
    for path in (ROOT / "localseek" / "api").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
        found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not any(str(module).startswith("converters") for module in found), path.name


def room_of(module: str) -> str:
    """Give the folder of a module; files beside a package's rooms are rooms of their own."""
    path = ROOT / module.replace(".", "/")
    if path.is_dir():
        return module
    if path.with_suffix(".py").exists() and module.count(".") == 1:
        return module
    return room_of(module.rpartition(".")[0])


def test_rooms_depend_on_each_other_in_one_direction():
    above: dict[str, set[str]] = {}
    for path in sources():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            if node.module.split(".")[0] not in PACKAGES:
                continue
            needed = {room_of(f"{node.module}.{alias.name}") for alias in node.names}
            above.setdefault(room_of(name), set()).update(needed - {room_of(name)})
    graphlib.TopologicalSorter(above).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(("package", "door"), ONE_DOOR.items())
def test_what_is_tied_to_a_version_has_one_door(package, door):
    users = [p.relative_to(ROOT).as_posix() for p in sources() if package in imported(p)]
    assert users and all(user.startswith(door) for user in users)


def test_the_file_map_is_the_real_tree():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    block = re.search(r"<!-- file map -->\n```\n(.*?)```", text, re.S)
    assert block, "docs/architecture.md has no file map"
    listed, folder = set(), ""
    for line in block[1].splitlines():
        name = line.split()[0] if line.strip() else ""
        if name.endswith("/") and not line.startswith(" "):
            folder = name
        elif name:
            listed.add(folder + name)
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    real = {
        p for p in tracked
        if p.endswith((".py", ".tcss")) and not p.endswith("__init__.py") and (ROOT / p).exists()
    }  # fmt: skip
    assert listed - real == set(), "listed but not there"
    assert real - listed == set(), "there but not listed"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short_and_say_what_they_are(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    assert path.name == "__init__.py" and not text.strip() or ast.get_docstring(ast.parse(text))


def test_lint_and_types_are_clean():
    for words in (["ruff", "check", "."], ["mypy"]):
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_holds_the_marks_of_a_conflict():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    marked = [
        name for name in tracked
        if (path := ROOT / name).suffix in {".py", ".md", ".toml", ".tcss"} and path.exists()
        and re.search(r"^(<{7}|>{7}) ", path.read_text("utf-8"), re.M)
    ]  # fmt: skip
    assert marked == []
