"""What holding an answer to a schema costs, ours and llama-server's; run by hand.

    python tests/bench/shaped.py MODEL.gguf… --llama-server PATH [--rounds 6]

Both have the model loaded and take turns: the same prompt is answered with `--tokens` tokens,
freely and held to a schema that asks for more than that, without drafts. Prints the decoding speed
of each, and a held answer's as a share of the free one's within a round, as medians.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from programs import Server, find_modules  # noqa: E402 - the path above comes first

from localseek import Engine  # noqa: E402

PROMPT = "Invent twenty people with name, age, city and what they like, as a JSON array."
SCHEMA = {
    "type": "array", "minItems": 20,
    "items": {
        "type": "object", "required": ["name", "age", "city", "likes"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "minLength": 3, "maxLength": 30},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "city": {"enum": ["Rome", "Paris", "Oslo", "Lima", "Cairo", "Kyoto"]},
            "likes": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 4},
        },
    },
}  # fmt: skip


def ours(engine: Engine, tokens: int, **form: Any) -> float:
    """Answer; give tokens a second of the decoding."""
    reply = engine.reply(PROMPT, temperature=0, max_tokens=tokens, think=False, **form)
    assert reply.stats is not None and reply.stats.generated_tokens > tokens // 2, reply
    return reply.stats.decode_tps


def theirs(server: Server, tokens: int, **form: Any) -> float:
    """Let llama-server answer; give tokens a second of the decoding."""
    request = {
        "messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": tokens,
        "chat_template_kwargs": {"enable_thinking": False}, **form,
    }  # fmt: skip
    timings = server.ask("v1/chat/completions", request)["timings"]
    assert timings["predicted_n"] > tokens // 2, timings
    return float(timings["predicted_per_second"])


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    find_modules(ROOT)
    home = tempfile.TemporaryDirectory()
    os.environ["LOCALSEEK_HOME"] = home.name
    wanted = {"type": "json_schema", "json_schema": {"name": "people", "schema": SCHEMA}}
    print("| | free tok/s | held tok/s | of the free |\n|---|---|---|---|")
    for path in options.models:
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(
                Engine(path, ctx=2048, threads=options.threads, mtp="off")
            )  # fmt: skip
            words = [options.llama_server, "-m", str(path), "-c", "2048", "--jinja"]
            server = Server([*words, "-t", str(options.threads)])
            stack.callback(server.close)
            ways = {
                "ours": lambda **form: ours(engine, options.tokens, **form),  # noqa: B023
                "llama-server": lambda **form: theirs(server, options.tokens, **form),  # noqa: B023
            }
            forms = {"ours": {"schema": json.dumps(SCHEMA)}, "llama-server": {
                "response_format": wanted}}  # fmt: skip
            free: dict[str, list[float]] = {name: [] for name in ways}
            held: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(options.rounds + 1):
                for name, way in ways.items():
                    pair = way(), way(**forms[name])
                    if number:  # the first round warms up
                        free[name].append(pair[0])
                        held[name].append(pair[1])
            for name in ways:
                share = [a / b for a, b in zip(held[name], free[name], strict=True)]
                print(
                    f"| {path.stem}, {name} | {statistics.median(free[name]):,.1f} "
                    f"| {statistics.median(held[name]):,.1f} | {statistics.median(share):.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
