"""What a repository holds at a commit, asked of the Hugging Face Hub or a mirror (HF_ENDPOINT).

Takes a name and a revision, gives a `Repository`. Tokens come from where huggingface_hub keeps
them (HF_TOKEN, its token file) and from nowhere else. Only the named repository is asked for.
"""


import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.hf_api import ModelInfo, RepoFile
from huggingface_hub.utils import logging, validate_repo_id  # type: ignore[attr-defined]  # its list

from localseek.errors import LocalseekError
from localseek.store.hub.explaining import explained, passing
from localseek.store.pulling.downloading import FIRST_WAIT_S, LONGEST_ASKED_S, wait
from localseek.store.pulling.remote import RemoteFile, Repository

TRIES = 3  # of a listing; a person waits for it


def look_up(repository: str, revision: str) -> Repository:
    """Ask what a repository holds; raises LocalseekError with the cause."""
    constants.HF_HUB_DISABLE_TELEMETRY = True
    logging.set_verbosity(40)  # errors only: a warning would be a line more
    try:
        validate_repo_id(repository)
    except errors.HFValidationError as error:
        raise explained(repository, error) from error
    for left in reversed(range(TRIES)):
        try:
            return _asked(repository, revision)
        except LocalseekError:
            raise
        except Exception as error:
            later = passing(error)
            pause = FIRST_WAIT_S if later is None or later.wait_s is None else later.wait_s
            if later is None or not left or pause > LONGEST_ASKED_S:
                raise explained(repository, error) from error
            wait(pause)
    raise AssertionError("the last try returns or raises")


def _asked(repository: str, revision: str) -> Repository:
    api = huggingface_hub.HfApi()
    info = api.model_info(
        repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    if not info.sha:
        raise LocalseekError(f"{constants.ENDPOINT} does not say at which commit {repository} is.")
    files = _files(api, info)
    licence, link = _licence(info, repository)
    return Repository(repository, info.sha, licence, link, bool(info.gated), files)


def _files(api: huggingface_hub.HfApi, info: ModelInfo) -> tuple[RemoteFile, ...]:
    listed = info.siblings or []
    if all(one.size is not None for one in listed):
        return tuple(
            RemoteFile(
                one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else "", one.blob_id or ""
            )
            for one in listed
        )
    # A mirror that leaves sizes out of its answer may still list the tree.
    tree = api.list_repo_tree(info.id, recursive=True, revision=info.sha)
    return tuple(
        RemoteFile(one.path, one.size, one.lfs.sha256 if one.lfs else "", one.blob_id or "")
        for one in tree
        if isinstance(one, RepoFile)
    )


def _licence(info: ModelInfo, repository: str) -> tuple[str, str]:
    """Give a licence's name, and a link if it is one of the repository's own."""
    card = info.card_data
    names = getattr(card, "license", None)
    name = ", ".join(map(str, names)) if isinstance(names, list) else str(names or "")
    own, link = (str(getattr(card, f"license_{key}", None) or "") for key in ("name", "link"))
    if link and "://" not in link:
        link = f"{constants.ENDPOINT}/{repository}/blob/{info.sha}/{link.lstrip('./')}"
    return (own if own and name in ("", "other") else name), link
