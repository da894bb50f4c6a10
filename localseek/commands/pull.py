"""`localseek pull`: download a checkpoint or a GGUF; the only verb that uses the internet."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localseek.commands.library.pull_choice import Chooser, Pull, Request, as_object, listing
from localseek.errors import LocalseekError, UsageError
from localseek.store.pulling.plan import (
    Ledger,
    Plan,
    claimed,
    drop_parts,
    keep_record,
    load_plan,
    request_key,
    save_plan,
)
from localseek.store.pulling.remote import Repository
from localseek.store.pulling.room import check_room, missing_bytes
from localseek.store.pulling.verifying import is_there
from localseek.system import paths
from localseek.system.sizes import rough_size
from localseek.terminal.messages import (
    Status,
    is_terminal,
    note,
    one_line,
    prepare_streams,
    width_of,
)

if TYPE_CHECKING:
    from localseek.store.pulling.fitting import Candidate

EXAMPLES = """examples:
  localseek pull deepseek-ai/DeepSeek-V2-Lite-Chat
  localseek pull someone/DeepSeek-R1-Distill-Qwen-7B-GGUF:Q4_K_M
  localseek pull someone/DeepSeek-R1-Distill-Qwen-7B-GGUF --fit
  localseek pull someone/DeepSeek-R1-Distill-Qwen-7B-GGUF --dry-run
  localseek pull deepseek-ai/DeepSeek-V2-Lite-Chat --convert Q4_K_M
  localseek pull deepseek-ai/DeepSeek-R1 --convert Q4_K_M --free-source

A download that was stopped goes on when the same command is given again. Mirrors: HF_ENDPOINT.
Private and gated repositories: hf auth login, or HF_TOKEN.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("repository", metavar="REPO[:TYPE]",
        help="owner/name on the Hugging Face Hub, or the address of its page")  # fmt: skip
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--type", metavar="TYPE", help="the GGUF of this type, such as Q4_K_M")
    choice.add_argument("--fit", action="store_true", help="the best GGUF that fits in memory here")
    add("--file", metavar="PATTERN", help="only the files whose name matches")
    add("--revision", metavar="REV", help="a branch, tag or commit (default: main)")
    add("--update", action="store_true",
        help="take what the revision is now, not what an earlier run has begun with")  # fmt: skip
    add("--to", metavar="FOLDER", type=Path, help="where to put the files (default: the library)")
    add("--convert", metavar="TYPE", help="then convert the checkpoint, to a type such as Q4_K_M")
    add("--out", metavar="FILE", type=Path,
        help="of --convert: the GGUF to write (default: in the library)")  # fmt: skip
    add("--free-source", action="store_true",
        help="of --convert: bring shards one by one, remove each once it is converted")  # fmt: skip
    add("--dry-run", action="store_true", help="say what would be downloaded, or list the models")
    add("--json", action="store_true", help="print the result as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Download and say what to do next."""
    prepare_streams()
    request = _request(arguments)
    quiet = arguments.json and not is_terminal(sys.stderr)
    pull = _planned(arguments, request)
    if pull is None:
        return 0
    if arguments.dry_run:
        _print(arguments, pull, "\n".join(file.name for file in pull.plan.files))
        return 0
    try:
        pull.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalseekError(
            f"{pull.folder} cannot be made: {error.strerror}.", "Give another folder with --to."
        ) from error
    with claimed(pull.folder):
        if arguments.convert:
            from localseek.commands.library import pull_convert

            return pull_convert.run(arguments, pull, quiet, _fetched, _facts(pull))
        _fetched(pull, quiet)
    _print(arguments, pull, _next_step(pull))
    return 0


def _request(arguments: argparse.Namespace) -> Request:
    from localseek.store.hub.addresses import named

    wanted = named(arguments.repository)
    of_name, revision = wanted.type, arguments.revision or wanted.revision or "main"
    if of_name and (arguments.type or arguments.fit):
        raise UsageError(
            f"{arguments.repository}: give the type once.", "Write OWNER/NAME:TYPE, or --type TYPE."
        )
    if wanted.revision and wanted.revision != revision:
        raise UsageError(
            f"The address says {wanted.revision}, and --revision {revision}.", "Give one of them."
        )
    kind = (arguments.type or of_name).upper()
    for option in ("out", "free_source"):
        if getattr(arguments, option) and not arguments.convert:
            name = option.replace("_", "-")
            raise UsageError(f"--{name} is for --convert.", "Add --convert TYPE.")
    if arguments.convert:
        from converters import TYPE_NAMES

        if kind or arguments.fit or arguments.file:
            raise UsageError(
                "--convert takes a whole checkpoint.", "Leave --type, --fit and --file out."
            )
        arguments.convert = arguments.convert.upper()
        if arguments.convert not in TYPE_NAMES:
            raise UsageError(
                f"There is no type {arguments.convert}.", f"Types: {', '.join(TYPE_NAMES)}."
            )
    return Request(
        wanted.repository, revision, kind, arguments.file or "", arguments.fit,
        bool(arguments.convert),
    )  # fmt: skip


def _planned(arguments: argparse.Namespace, request: Request) -> Pull | None:
    """Find out what to download; None when only a list was asked for."""
    from localseek.store.hub import asking, streaming

    key = request_key(
        request.repository, request.revision, request.type, request.pattern,
        "fit" if request.fit else "",
    )  # fmt: skip
    begun = None if arguments.update else _begun(arguments, request, key)
    try:
        found = asking.look_up(request.repository, request.revision)
    except LocalseekError as error:
        made = begun is not None and any(Path(one).exists() for one in begun.plan.outputs)
        if begun is None or isinstance(error, UsageError) or not (made or _complete(begun)):
            raise
        note(f"{error.message} What was pulled before is used.")
        return begun
    if begun is not None:
        _say_if_moved(begun, found)
        _introduce(begun.plan, found)
        return begun
    opener = streaming.opener(found.name, found.commit)
    chooser = Chooser(request, found, opener)
    if (judged := chooser.judged()) is not None:
        _list(arguments, *judged)
        chooser.listed = True
        if arguments.dry_run:
            return None
    plan = chooser.plan()
    _introduce(plan, found)
    return Pull(request, key, _folder(arguments, request, plan.checkpoint), plan)


def _folder(arguments: argparse.Namespace, request: Request, checkpoint: bool) -> Path:
    if arguments.to is not None:
        return Path(arguments.to).expanduser()
    root = paths.home() / ("checkpoints" if checkpoint else "models")
    return root / request.repository  # with its owner: two may use the same name


def _begun(arguments: argparse.Namespace, request: Request, key: str) -> Pull | None:
    """Find what an earlier run of the same command has set out to fetch."""
    for checkpoint in (True, False):
        folder = _folder(arguments, request, checkpoint)
        plan = load_plan(folder, key)
        fits = plan is not None and (plan.checkpoint or not request.checkpoint)
        if plan is not None and fits and plan.repository.lower() == request.repository.lower():
            return Pull(request, key, folder, plan)
    return None


def _complete(pull: Pull) -> bool:
    """Tell whether every file is there as it was verified."""
    ledger = Ledger(pull.folder)
    return all(ledger.sha256(file.name) for file in pull.plan.files)


def _say_if_moved(begun: Pull, found: Repository) -> None:
    plan = begun.plan
    if found.commit != plan.commit:
        done = "what is here is commit" if _complete(begun) else "this goes on with commit"
        note(
            f"{plan.revision} has moved on to {found.commit[:12]}; {done} {plan.commit[:12]}. "
            "--update takes the new one."
        )


def _introduce(plan: Plan, found: Repository) -> None:
    """Say what is to be downloaded, and under which licence."""
    kind = "checkpoint" if plan.checkpoint else f"GGUF {plan.model}".strip()
    count = f"{len(plan.files)} file{'s' * (len(plan.files) != 1)}"
    note(f"{plan.repository}: {kind}, {count}, {rough_size(plan.size_bytes)}")
    note(f"Licence: {one_line(plan.licence)}" if plan.licence else "Its card names no licence.")
    if found.gated:
        note("It is gated: only those whom its owner lets in can download it.")


def _list(arguments: argparse.Namespace, judged: "list[Candidate]", assumed: str) -> None:
    """Show the models of a repository: what was asked for on stdout, else beside the error."""

    stream = sys.stdout if arguments.dry_run else sys.stderr
    if arguments.dry_run and arguments.json:
        print(json.dumps([as_object(one) for one in judged]))
    else:
        print("\n".join(listing(judged, assumed, width_of(stream))), file=stream)


def _fetched(pull: Pull, quiet: bool) -> None:
    """Make all files whole, and record what they are."""
    from localseek.commands.library.pull_progress import shown
    from localseek.store.hub.streaming import opener
    from localseek.store.pulling.brought import Brought
    from localseek.store.pulling.downloading import Downloader, Tally

    plan, folder = pull.plan, pull.folder
    ledger = Ledger(folder)
    Brought(folder).forget()  # what a stopped --free-source has left is wanted whole now
    with Status("looking at what is here already…"):
        missing = [file for file in plan.files if not is_there(folder, file, ledger)]
    if missing:
        to_come = missing_bytes(folder, missing)
        check_room(folder, to_come, plan.repository)
        save_plan(folder, pull.key, plan)
        tally = Tally(plan.size_bytes, len(plan.files), plan.size_bytes - to_come)
        tally.done_files = len(plan.files) - len(missing)
        if tally.done_bytes:
            note(f"Going on where it stopped, at {tally.share:.0%}.")
        downloader = Downloader(folder, opener(plan.repository, plan.commit), ledger, tally)
        try:
            with shown(tally, quiet):
                # The small ones first: what is wrong with a checkpoint shows early.
                downloader.fetch_all(sorted(missing, key=lambda file: file.size_bytes > 10**7))
        except KeyboardInterrupt:
            note(f"Stopped at {tally.share:.0%}; the same command goes on.")
            raise
    else:
        note("Everything is here already.")
        save_plan(folder, pull.key, plan)
    drop_parts(folder)
    keep_record(folder, plan, ledger)


def _facts(pull: Pull) -> dict[str, Any]:
    plan = pull.plan
    facts = {
        "repository": plan.repository, "commit": plan.commit, "licence": plan.licence,
        "path": str(pull.folder), "size_bytes": plan.size_bytes,
        "files": [file.name for file in plan.files],
    }  # fmt: skip
    return facts if plan.checkpoint else facts | {"models": _model_names(pull)}


def _print(arguments: argparse.Namespace, pull: Pull, text: str) -> None:
    print(json.dumps(_facts(pull)) if arguments.json else text)


def _model_names(pull: Pull) -> list[str]:
    """Give the names by which the GGUF models are asked for."""
    from localseek.gguf.info import is_later_part

    found = [pull.folder / file.name for file in pull.plan.files]
    models, names = paths.home() / "models", []
    for path in found:
        if not is_later_part(path):
            inside = path.is_relative_to(models)
            names.append(
                path.relative_to(models).with_suffix("").as_posix() if inside else str(path)
            )
    return names


def _next_step(pull: Pull) -> str:
    folder = pull.folder
    if pull.plan.checkpoint:
        return f"{folder}\nNext: localseek convert {folder} {folder.name}.gguf --type Q4_K_M"
    return f'{folder}\nNext: localseek ask -m {_model_names(pull)[0]} "Hello"'
