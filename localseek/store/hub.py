"""The only module that reaches for the internet: downloads from the Hugging Face Hub.

Takes a repository's name, gives a folder of a checkpoint or of GGUF files; a download that was
stopped goes on where it was. Only `localseek pull` imports it, and nothing but the named
repository is asked for.
"""

import fnmatch
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils.tqdm import disable_progress_bars

from localseek.errors import LocalseekError, UsageError

CHECKPOINT_FILES = ("*.json", "*.jinja", "README.md", "LICENSE*")
PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")  # llama.cpp's name for a part of a split model


@dataclass(frozen=True, slots=True)
class Download:
    """What a repository would bring: its files at one commit, and their size."""

    repository: str
    commit: str
    files: tuple[str, ...]
    size_bytes: int
    is_checkpoint: bool  # else GGUF files


def look_up(repository: str, revision: str | None, pattern: str | None) -> Download:
    """Ask what a repository holds and choose: GGUF files, or a checkpoint's own.

    `pattern` narrows the choice, as a shell would. Raises LocalseekError with the cause.
    """
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        info = huggingface_hub.HfApi().model_info(
            repository, revision=revision, files_metadata=True
        )
    except errors.HFValidationError as error:
        raise UsageError(
            f"{repository!r} is not a repository name.",
            "It looks like: deepseek-ai/DeepSeek-V2-Lite-Chat.",
        ) from error
    except Exception as error:
        raise explained(repository, error) from error
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    weights = fnmatch.filter(sizes, "*.safetensors")
    ggufs = fnmatch.filter(sizes, "*.gguf")
    if not weights and not ggufs:  # some early releases are there as PyTorch's files only
        weights = fnmatch.filter(sizes, "pytorch_model*.bin")
    checkpoint = bool(weights) and not (pattern and fnmatch.filter(ggufs, pattern))
    wanted = (*weights, *CHECKPOINT_FILES) if checkpoint else ("*.gguf",)
    # Subfolders of checkpoints hold other formats (ONNX, originals); GGUF parts live in them.
    chosen = [
        name for name in sizes
        if any(fnmatch.fnmatch(name, w) for w in wanted) and not (checkpoint and "/" in name)
    ]  # fmt: skip
    if pattern:
        chosen = fnmatch.filter(chosen, pattern)
    if not chosen or not (weights or ggufs):
        raise LocalseekError(
            f"{repository} holds nothing that localseek can use"
            f"{f' and that matches {pattern}' if pattern else ''}.",
            f"It has: {', '.join(sorted(sizes)[:8]) or 'no files'}.",
        )
    models = {PART.sub("", name) for name in chosen}
    if not checkpoint and not pattern and len(models) > 1:
        names = ", ".join(sorted(chosen)[:12])
        raise UsageError(f"{repository} holds several models: {names}.", "Choose with --file.")
    size = sum(sizes[name] for name in chosen)
    return Download(repository, info.sha or "main", tuple(sorted(chosen)), size, checkpoint)


def fetch(download: Download, folder: Path, show_progress: bool) -> Path:
    """Download into `folder` and give it; raises LocalseekError with the cause."""
    there = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    free = shutil.disk_usage(folder).free + there
    if download.size_bytes > free:
        raise LocalseekError(
            f"{download.repository} takes {download.size_bytes / 1e9:,.1f} GB and the disk of "
            f"{folder} has {free / 1e9:,.1f} GB free.",
            "Set LOCALSEEK_HOME to a larger disk.",
        )
    if not show_progress:
        disable_progress_bars()
    try:
        huggingface_hub.snapshot_download(
            download.repository, revision=download.commit, local_dir=folder,
            allow_patterns=list(download.files),
        )  # fmt: skip
    except Exception as error:
        raise explained(download.repository, error) from error
    return folder


def explained(repository: str, error: Exception) -> LocalseekError:
    """Put an error of the download library into one line with a remedy.

    Its HTTP client raises many kinds; each one that is not named here is a failed connection.
    """
    if isinstance(error, errors.GatedRepoError):
        return LocalseekError(
            f"{repository} is gated: its owner must let you in.",
            "Ask on the repository's page, then: hf auth login.",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return LocalseekError(
            f"There is no repository {repository}, or it is private.",
            "Check the name; for a private one: hf auth login.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return LocalseekError(f"{repository} has no such revision.", "Leave --revision out.")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return LocalseekError("HF_HUB_OFFLINE is set.", "Unset it to download.")
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        return LocalseekError(f"The download cannot be written: {error.strerror}.")
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return LocalseekError(
        f"{repository} could not be downloaded: {first.rstrip('.')}.",
        "Check the connection; the same command goes on where it stopped.",
    )
