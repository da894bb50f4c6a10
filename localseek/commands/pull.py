"""`localseek pull`: download a checkpoint or a GGUF; the only verb that uses the internet."""

import argparse
import json
import sys

from localseek.system import paths
from localseek.system.sizes import rough_size
from localseek.terminal.messages import is_terminal, note, prepare_streams

EXAMPLES = """examples:
  localseek pull deepseek-ai/DeepSeek-V2-Lite-Chat
  localseek pull someone/DeepSeek-R1-Distill-Qwen-7B-GGUF --file '*Q4_K_M*'
  localseek pull deepseek-ai/DeepSeek-R1 --dry-run
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("repository", metavar="REPO", help="owner/name on the Hugging Face Hub")
    add("--file", metavar="PATTERN", help="only the files whose name matches")
    add("--revision", metavar="REV", help="a branch, tag or commit (default: main)")
    add("--dry-run", action="store_true", help="say what would be downloaded")
    add("--json", action="store_true", help="print the result as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Download and say what to do next."""
    prepare_streams()
    from localseek.store import hub

    download = hub.look_up(arguments.repository, arguments.revision, arguments.file)
    kind = "checkpoint" if download.is_checkpoint else "GGUF"
    size = rough_size(download.size_bytes)
    note(f"{download.repository}: {kind}, {len(download.files)} files, {size}")
    root = paths.folder("checkpoints") if download.is_checkpoint else paths.models()
    folder = root / download.repository  # with its owner: two may use the same name
    if not arguments.dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        hub.fetch(download, folder, is_terminal(sys.stderr) and not arguments.json)
    result = {
        "repository": download.repository, "commit": download.commit, "path": str(folder),
        "size_bytes": download.size_bytes, "files": list(download.files),
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(result))
    elif arguments.dry_run:
        print("\n".join(download.files))
    elif download.is_checkpoint:
        print(f"{folder}\nNext: localseek convert {folder} {folder.name}.gguf --type Q4_K_M")
    else:
        name = (folder / download.files[0]).relative_to(paths.models()).with_suffix("")
        print(f'{folder}\nNext: localseek ask -m {name} "Hello"')
    return 0
