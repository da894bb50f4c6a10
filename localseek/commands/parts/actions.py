"""The actions of a verb, as `localseek history delete`: each with its help, an example and --json.

Takes what adds a parser; gives that parser. Knows no verb.
"""

import argparse
from collections.abc import Callable


def action(
    add: Callable[..., argparse.ArgumentParser], name: str, summary: str, examples: str,
    prints: str = "one JSON object", more: str = "",
) -> argparse.ArgumentParser:  # fmt: skip
    """Add an action; `examples` are command lines, one a line, and `more` follows its summary."""
    lines = "".join(f"\n  {line}" for line in examples.splitlines())
    added = add(
        name,
        help=summary,
        description=f"{summary}{more and chr(10)}{more}",
        epilog=f"example{'s' if lines.count(chr(10)) > 1 else ''}:{lines}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # SUPPRESS: else an action's default would overwrite a --json that stands before it.
    added.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help=f"print {prints}"
    )
    return added
