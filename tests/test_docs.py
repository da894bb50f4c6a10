import argparse
import importlib
import re
from pathlib import Path

import pytest

from localseek import cli

ROOT = Path(__file__).parent.parent
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
         *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip
COMMAND = re.compile(r"(?:uv run |\$ |^|`)localseek ([^`\n]*)", re.M)
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)")


def parser_of(verb: str) -> argparse.ArgumentParser:
    module = importlib.import_module(f"localseek.commands.{verb or 'app'}")
    parser = cli.Parser(prog="localseek")
    module.configure(parser)
    return parser


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    found: set[str] = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found |= options_of(inner)
    return found


def anchors_of(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file.read_text("utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist_with_their_options(page):
    shown = 0
    for line in COMMAND.findall(page.read_text("utf-8")):
        words = line.split("#")[0].split("|")[0].split()
        verb = words[0] if words and re.fullmatch(r"[a-z]+", words[0]) else ""
        if verb and verb not in cli.VERBS:
            continue  # a sentence that begins with the program's name
        shown += 1
        known = options_of(parser_of(verb))
        for option in OPTION.findall(line.split(" # ")[0]):
            assert option in known, f"localseek {line}"
    without = {"CONTRIBUTING.md", "architecture.md", "faults.md", "measurements.md"}
    assert shown or page.name in without | {"nano.md", "python.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_are_named_belong_to_some_verb_or_tool(page):
    known = set().union(*(options_of(parser_of(verb)) for verb in ("", *cli.VERBS)))
    others = {"--version", "--spec-type", "--dry-run", "--chunks", "--no-ppl", "--steps"}
    others |= {"--reinstall-package", "--imatrix", "--quiet", "--kv-unified", "--jinja"}
    for quoted in re.findall(r"`(--[a-z][a-z-]*)", page.read_text("utf-8")):
        assert quoted in known | others, quoted


def test_the_readme_is_short_and_leads_to_every_page():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 200
    linked = {target.partition("#")[0] for target in re.findall(r"\]\((docs/[^)]+)\)", text)}
    assert linked == {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}


def test_the_readmes_test_command_is_what_ci_runs():
    text = (ROOT / "README.md").read_text("utf-8")
    assert "\npip install uv && uv run pytest\n" in text
    assert "\npip install uv && uv run pytest\n" in (ROOT / ".ci" / "run").read_text("utf-8")


PLACES = re.compile(r"`((?:converters|localseek|tui|tests|docs)/[\w./-]+\.(?:py|md|json|npz))`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_with_their_folder_are_there(page):
    named = PLACES.findall(page.read_text("utf-8"))
    named = [name for name in named if "NAME" not in name]  # a file that is to be written
    assert [name for name in named if not (ROOT / name).exists()] == []
