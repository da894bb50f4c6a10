"""What localseek and llama.cpp make of the test suite's schemas: run by hand.

    python tests/reference/compare_schemas.py --llama-server PATH [--gbnf COMMAND]

For every schema of `tests/engine/test_guide.py`: is it taken, may the answer that fits be written,
and is the one that does not refused, at a token or, here, in the check of the whole answer?
llama.cpp's grammar is the one that llama-server says it made of the schema; its sampler is walked
through the tokens of both answers. COMMAND reads a schema on stdin and prints GBNF, or fails: for
a third column.
"""

import argparse
import ctypes
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "bench")]

import llama_cpp.llama_cpp as lib  # noqa: E402 - the paths above come first
from engine.test_guide import CHECKED, HELD, ends_after  # noqa: E402
from programs import Server, find_modules  # noqa: E402

from localseek.api.models import find_model  # noqa: E402
from localseek.engine.decoding.guide import Guides  # noqa: E402
from localseek.engine.llama import Model  # noqa: E402
from localseek.errors import LocalseekError  # noqa: E402
from localseek.options import Sampling  # noqa: E402
from localseek.text.grammars import check  # noqa: E402
from localseek.text.schema import misfit  # noqa: E402

Takes = Callable[[str, str], bool]  # a schema and an answer → whether the answer may be written


class Refused(Exception):
    """The schema is not taken."""


def ours(model: Model) -> Takes:
    """Walk llguidance's masks, then check the whole answer."""
    guides = Guides(model)

    def takes(schema: str, answer: str) -> bool:
        try:
            check(schema=schema)
            guide = guides.guide(Sampling(schema=schema))
        except LocalseekError as error:
            raise Refused from error
        return ends_after(guide, model, answer) and not misfit(answer, schema)

    return takes


def by_grammar(model: Model, gbnf_of: Callable[[str], str]) -> Takes:
    """Walk llama.cpp's grammar sampler."""
    known: dict[str, str] = {}

    def takes(schema: str, answer: str) -> bool:
        if schema not in known:
            known[schema] = gbnf_of(schema)
        sampler = lib.llama_sampler_init_grammar(
            model.vocab, known[schema].encode(), b"root"
        )
        if not sampler:
            raise Refused
        try:
            for token in model.tokenize(answer, parse_special=False):
                if not _allows(sampler, token):
                    return False
                lib.llama_sampler_accept(sampler, token)
            return any(_allows(sampler, end) for end in model.ends)
        finally:
            lib.llama_sampler_free(sampler)

    return takes


def _allows(sampler: Any, token: int) -> bool:
    one = (lib.llama_token_data * 1)(lib.llama_token_data(token, 1.0, 0.0))
    candidates = lib.llama_token_data_array(one, 1, -1, False)
    lib.llama_sampler_apply(sampler, ctypes.byref(candidates))
    return bool(one[0].logit > -1e30)


def servers_grammar(server: Server) -> Callable[[str], str]:
    """Give what a llama-server makes of a schema."""

    def gbnf_of(schema: str) -> str:
        request = {"prompt": "1", "n_predict": 1, "json_schema": json.loads(schema)}
        try:
            found = server.ask("completion", request)
        except urllib.error.HTTPError as error:
            raise Refused from error
        return str(found["generation_settings"]["grammar"])

    return gbnf_of


def commands_grammar(command: str) -> Callable[[str], str]:
    """Give what a command makes of a schema."""

    def gbnf_of(schema: str) -> str:
        done = subprocess.run(
            shlex.split(command), input=schema, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Refused
        return done.stdout

    return gbnf_of


def verdict(takes: Takes, schema: object, fitting: object, wrong: object) -> tuple[str, float]:
    """Give one of the table's words, and the seconds that it took."""
    text, started = json.dumps(schema), time.perf_counter()
    try:
        right = takes(text, json.dumps(fitting))
        let_through = takes(text, json.dumps(wrong))
    except Refused:
        return "refused", time.perf_counter() - started
    words = [] if right else ["keeps the fitting one out"]
    words += ["lets the other through"] if let_through else []
    return " and ".join(words) or "right", time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--gbnf", metavar="COMMAND")
    options = parser.parse_args()
    find_modules(ROOT)
    with tempfile.TemporaryDirectory() as home:
        os.environ["LOCALSEEK_HOME"] = home
        path = find_model("nano")
        server = Server([options.llama_server, "-m", str(path), "-c", "2048"], 1)
        model = Model(str(path), load_mtp=False)
        try:
            columns = {
                "localseek": ours(model), "llama.cpp": by_grammar(model, servers_grammar(server))
            }  # fmt: skip
            if options.gbnf:
                columns["third"] = by_grammar(model, commands_grammar(options.gbnf))
            print(f"| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
            counts = dict.fromkeys(columns, 0)
            for name, case in (HELD | CHECKED).items():
                cells = []
                for column, takes in columns.items():
                    word, seconds = verdict(takes, *case)
                    counts[column] += word == "right"
                    cells.append(word + (f" ({seconds:.1f} s)" if seconds > 1 else ""))
                print(f"| {name} | {' | '.join(cells)} |", flush=True)
            total = len(HELD | CHECKED)
            print(f"| right | {' | '.join(f'{one} of {total}' for one in counts.values())} |")
        finally:
            server.close()


if __name__ == "__main__":
    main()
