"""`localseek models`: what is on this machine, what a file says of itself, what was saved."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from localseek.commands.parts.actions import action
from localseek.terminal.messages import Status, complain, note, one_line, prepare_streams, width_of

if TYPE_CHECKING:
    from localseek.store.models.catalogue import Model
    from localseek.system.machine import Machine

EXAMPLES = """examples:
  localseek models list
  localseek models show deepseek-r1-distill-qwen-7b:q4_k_m
  localseek models verify ./r1.gguf --against ./DeepSeek-R1
  localseek models rename deepseek-r1-distill-qwen-7b:q4_k_m r1-small
  localseek models remove r1-small
  localseek models show ./r1.gguf --json | jq .tensor_types
"""
NAMED_DAMAGED = 3  # of other programs' files


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    actions = parser.add_subparsers(
        dest="action", metavar="list|show|verify|rename|remove|sequences"
    )
    # fmt: off
    add = actions.add_parser
    shown = action(add, "list", "the models on this machine",
        "localseek models list\nlocalseek models list --names", "a JSON array")
    shown.add_argument("--names", action="store_true",
        help="only their names, a line each, at once: what a shell completes")
    show = action(add, "show", "what a model file says about itself",
        "localseek models show ./r1.gguf --json | jq .tensor_types")
    show.add_argument("name", metavar="NAME", help="a model's name, a GGUF file, or nano")
    checked = action(add, "verify", "every value checked, alone or against its source",
        "localseek models verify ./r1.gguf --against ./DeepSeek-R1")
    checked.add_argument("name", metavar="NAME", help="a model's name, a GGUF file, or nano")
    checked.add_argument("--against", type=Path, metavar="SOURCE",
        help="compare with the checkpoint folder or GGUF file that it was made from")
    checked.add_argument("--threads", type=int, metavar="N", help="default: one a processor")
    renamed = action(add, "rename", "give a model of the library another name",
        "localseek models rename deepseek-r1-distill-qwen-7b:q4_k_m r1-small")
    renamed.add_argument("name", metavar="NAME", help="a model of the library")
    renamed.add_argument("new", metavar="NEW", help="its new name, without folder and ending")
    removed = action(add, "remove", "delete models of the library",
        "localseek models remove r1-small\nlocalseek models remove r1-small r1-large --yes")
    removed.add_argument("names", nargs="+", metavar="NAME", help="models of the library")
    removed.add_argument("--yes", action="store_true", help="do not ask")
    kept = action(add, "sequences", "what --prompt-cache has saved",
        "localseek models sequences\nlocalseek models sequences --clear")
    kept.add_argument("--clear", action="store_true", help="remove all of it")
    # fmt: on
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    prepare_streams()
    if arguments.action == "show":
        return _show(arguments.name, arguments.json)
    if arguments.action == "verify":
        from localseek.commands.library import verify

        return verify.run(arguments)
    if arguments.action in ("rename", "remove"):
        from localseek.commands.library import tidying

        return (tidying.rename if arguments.action == "rename" else tidying.remove)(arguments)
    if arguments.action == "sequences":
        return _sequences(arguments.clear, arguments.json)
    if getattr(arguments, "names", False):
        return _names()
    return _list(arguments.json)


def _names() -> int:
    """Print names, a line each; what is in the way of finding them is of no interest to a shell."""
    from localseek.store.models import catalogue

    print("\n".join(catalogue.spoken(catalogue.all_models(read=False))))
    return 0


def _show(name: str, as_json: bool) -> int:
    """Print all that is known of a model."""
    from localseek.api.models import find_model
    from localseek.commands.library import model_page
    from localseek.gguf.info import read_info
    from localseek.store.models import catalogue

    info = read_info(find_model(name))
    model = catalogue.at(info.path, catalogue.all_models())
    shown = model_page.details(info, model) if as_json else None
    print(json.dumps(shown) if shown else model_page.page(info, model))
    return 0


def _list(as_json: bool) -> int:
    """Print all models; the library's damaged files are named and make the exit status 1."""
    from localseek import nano
    from localseek.commands.library import model_list
    from localseek.options import LoadOptions
    from localseek.store import changing
    from localseek.store.models import catalogue
    from localseek.store.models.files import EMBEDDED
    from localseek.store.models.fitting import fit_of
    from localseek.store.models.names import digits
    from localseek.system import paths
    from localseek.system.machine import imagined

    with Status("looking for models…"):
        models = catalogue.all_models()
    damaged = _complain(models)
    known = [(model, model.facts) for model in models if model.facts is not None]
    machine = _machine() if known else imagined((), 0, 1)
    listed = [(model, facts, fit_of(facts, machine, LoadOptions())) for model, facts in known]
    if as_json:
        print(json.dumps([model_list.as_object(*one) for one in listed]))
    elif listed:
        print("\n".join(model_list.lines(listed, width_of(sys.stdout))))
        for model, _ in known:
            if model.name.endswith(digits(model.path)):  # which say nothing
                note(f"{one_line(model.name)} is {one_line(str(model.path))}")
    if not as_json and not any(EMBEDDED in model.names for model in models):
        there = (nano.CHECKPOINT / "config.json").is_file()
        place = f"Put GGUF files into {paths.models()}, or make them with localseek convert."
        note("nano, the embedded model, is prepared on first use." if there else place)
    for one in changing.unfinished():
        note(f"Renaming {one.old} to {one.new} was interrupted: "
             f"localseek models rename {one.old} {one.new} finishes it.")  # fmt: skip
    return 1 if damaged else 0


def _complain(models: "list[Model]") -> int:
    """Name damaged files; give how many are the library's. Those of others are only noted."""
    own = [model for model in models if model.problem and model.in_library]
    for model in own:
        complain(model.problem)
    others = [model for model in models if model.problem and not model.in_library]
    if others:
        some = ", ".join(str(model.path) for model in others[:NAMED_DAMAGED])
        more = f" and {len(others) - NAMED_DAMAGED} more" if len(others) > NAMED_DAMAGED else ""
        note(f"Other programs' files that cannot be read: {some}{more}.")
    return len(own)


def _machine() -> "Machine":
    from localseek.commands.library import devices
    from localseek.errors import EngineError
    from localseek.system import hardware

    try:
        return devices.machine_here()
    except EngineError as error:
        note(f"Devices are not counted: {error.message}")
        return hardware.read_machine(())


def _sequences(clear: bool, as_json: bool) -> int:
    """Say how much the saved sequences take, or remove them."""
    from localseek.store.sequences import SequenceStore
    from localseek.system.sizes import rough_size

    store = SequenceStore(limit_bytes=1) if clear else SequenceStore()  # clearing needs no limit
    if clear:
        count, size = store.clear()
        text = f"Removed: {count} saved, {rough_size(size)}."
    else:
        saved = store.list()
        count, size = len(saved), sum(one.size_bytes for one in saved)
        limit = f"at most {rough_size(store.limit_bytes)} are kept"
        noun = "sequence" if count == 1 else "sequences"
        text = f"{count} saved {noun}, {rough_size(size)}; {limit}, in {store.folder}."
    print(json.dumps({"sequences": count, "size_bytes": size}) if as_json else text)
    return 0
