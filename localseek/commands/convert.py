"""`localseek convert`: a checkpoint folder or a GGUF file → a GGUF file, with a bar meanwhile."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from localseek.commands.parts.converting import Meter, as_object, as_ours, convert_shown, summary
from localseek.errors import LocalseekError, UsageError
from localseek.system.sizes import parse_size, rough_size
from localseek.terminal.messages import is_terminal, note, prepare_streams, says_yes

if TYPE_CHECKING:
    from converters import ConvertOptions

EXAMPLES = """examples:
  localseek convert ./DeepSeek-V2-Lite v2-lite.gguf
  localseek convert ./DeepSeek-R1 r1.gguf --type Q4_K_M
  localseek convert ./DeepSeek-R1 r1.gguf --type Q2_K --tensor-type 'ffn_down_exps=Q3_K'
  localseek convert ./DeepSeek-R1 r1.gguf --type IQ2_XXS --imatrix r1-imatrix.gguf
  localseek convert ./DeepSeek-R1/config.json --type Q4_K_M --dry-run
  localseek convert ./DeepSeek-V2-Lite v2-lite.gguf --fit 8GB
  localseek convert ./DeepSeek-R1 r1.gguf --type Q4_K_M --free-source
  localseek convert r1-F16.gguf r1-Q4_K_M.gguf --type Q4_K_M
  localseek convert r1-00001-of-00009.gguf r1-mtp.gguf --add-mtp ./DeepSeek-R1

types, as llama-quantize mixes them (those with a * need --imatrix):
  unquantized          F32 BF16 F16
  plain blocks         Q8_0 Q5_1 Q5_0 Q4_1 Q4_0
  K-quants             Q6_K Q5_K_M Q5_K_S Q4_K_M Q4_K_S Q3_K_L Q3_K_M Q3_K_S Q2_K Q2_K_S*
  I-quants             IQ4_NL IQ4_XS IQ3_M IQ3_S IQ3_XS* IQ3_XXS*
                       IQ2_M* IQ2_S* IQ2_XS* IQ2_XXS* IQ1_M* IQ1_S*
  experts in FP4       MXFP4_MOE
  ternary and one bit  TQ2_0 TQ1_0 Q1_0
--tensor-type takes ggml's own types: those without _S, _M, _L and _MOE, MXFP4 and NVFP4.

recipes of our own for models with routed experts, which take the cut: DS_Q4 DS_Q3 DS_Q2
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add = parser.add_argument
    add("source", metavar="SOURCE", type=Path,
        help="a folder with config.json and weights, or a GGUF file")  # fmt: skip
    add("target", metavar="OUT.gguf", type=Path, nargs="?", help="the file to write")
    add("--dry-run", action="store_true",
        help="say what would be written; SOURCE may be a config.json alone")  # fmt: skip
    choice = parser.add_mutually_exclusive_group()
    # No default here: argparse would not see that a default value was given beside --fit.
    choice.add_argument("--type", metavar="TYPE",
        help="Q4_K_M, Q6_K, BF16, … in any case: all are listed below; for a GGUF file also "
        "keep (default: Q8_0, for a GGUF file keep)")  # fmt: skip
    choice.add_argument("--fit", metavar="SIZE",
        help="the best mixture for a file of at most this size, such as 24GB or 24GiB")  # fmt: skip
    add("--tensor-type", action="append", default=[], metavar="REGEX=TYPE",
        help="another type for the tensors whose name matches (repeatable)")  # fmt: skip
    add("--imatrix", metavar="FILE", type=Path,
        help="an importance matrix of llama-imatrix, in GGUF or .dat format")  # fmt: skip
    add("--mtp", choices=("keep", "drop", "only"), default="keep",
        help="the multi-token prediction layer, which drafts; only: as a file (V4)")  # fmt: skip
    add("--split-size", metavar="SIZE",
        help="several files with so many bytes of tensors at the most, such as 48G")  # fmt: skip
    add("--add-mtp", type=Path, metavar="CHECKPOINT",
        help="add the MTP layer of this folder to a GGUF file without one")  # fmt: skip
    add("--free-source", action="store_true",
        help="remove each shard of SOURCE once it is converted, to save disk space")  # fmt: skip
    add("--yes", action="store_true", help="do not ask before shards are removed")
    add("--threads", type=int, metavar="N", help="default: one a processor")
    add("--force", action="store_true", help="replace OUT.gguf if it exists")
    add("--restart", action="store_true",
        help="begin again: forget what an interrupted run has done")  # fmt: skip
    add("--json", action="store_true", help="print the result as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Convert and print what was written."""
    prepare_streams()
    overrides = tuple(_override(text) for text in arguments.tensor_type)
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError(f"--threads is {arguments.threads}; 1 or more is possible.")
    from converters import KEEP, TYPE_NAMES, ConvertOptions

    of_gguf = arguments.source.is_file() and arguments.source.suffix != ".json"
    kind = (arguments.type or (KEEP if of_gguf else "Q8_0")).upper()
    if kind not in (*TYPE_NAMES, KEEP):
        raise UsageError(f"There is no type {arguments.type}.", f"Types: {', '.join(TYPE_NAMES)}.")
    options = ConvertOptions(
        type=kind,
        mtp=arguments.mtp,
        tensor_types=overrides,
        threads=arguments.threads,
        force=arguments.force,
        restart=arguments.restart,
        fit_bytes=_size("--fit", arguments.fit),
        split_bytes=_size("--split-size", arguments.split_size),
        add_mtp=arguments.add_mtp,
        imatrix=arguments.imatrix,
        free_source=arguments.free_source,
    )
    if arguments.dry_run:
        return _dry_run(arguments, options)
    if arguments.target is None:
        raise UsageError("Give the file to write: localseek convert SOURCE OUT.gguf.")
    if arguments.free_source:
        _confirm(arguments)
    quiet = arguments.json and not is_terminal(sys.stderr)
    result = convert_shown(arguments.source, arguments.target, options, Meter(quiet))
    if arguments.json:
        print(json.dumps(as_object(result)))
        return 0
    print(summary(result))
    if result.fitted is not None:
        from localseek.commands.parts import convert_table

        convert_table.show_fit(result.fitted)
    return 0


def _confirm(arguments: argparse.Namespace) -> None:
    """Ask before the user's shards are removed; raise LocalseekError without a yes."""
    from converters import ConvertError, freeable

    try:
        found = freeable(arguments.source)
    except ConvertError as error:
        raise as_ours(error) from error
    count = len(found.shards)
    if arguments.yes or not count:
        return
    before = f" ({found.gone} are gone already)" if found.gone else ""
    what = (
        f"{count} shard{'s' if count > 1 else ''}{before}, {rough_size(found.size_bytes)}, of "
        f"{found.folder}"
    )
    if not is_terminal(sys.stdin) or not is_terminal(sys.stderr):
        raise UsageError(f"--free-source removes {what}.", "Add --yes where nobody can be asked.")
    note(f"Each shard is removed for good once it is converted: {what}.")
    note(f"{arguments.target} is what remains of them.")
    if not says_yes("Remove them?"):
        raise LocalseekError("Nothing was removed, nothing was written.")


def _dry_run(arguments: argparse.Namespace, options: "ConvertOptions") -> int:
    from converters import ConvertError, preview
    from localseek.commands.parts import convert_table

    try:
        found = preview(arguments.source, options)
    except ConvertError as error:
        raise as_ours(error) from error
    for warning in found.warnings:
        note(f"warning: {warning}")
    if arguments.json:
        print(convert_table.as_json(found))
    else:
        convert_table.show(found)
    return 0


def _size(option: str, text: str | None) -> int | None:
    return None if text is None else parse_size(option, text)


def _override(text: str) -> tuple[str, str]:
    pattern, sign, name = text.rpartition("=")
    if not sign or not pattern or not name:
        raise UsageError(f"--tensor-type {text!r} is not REGEX=TYPE.")
    return pattern, name.upper()
