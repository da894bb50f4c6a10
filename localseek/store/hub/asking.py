"""What a repository holds at a commit, asked of the Hugging Face Hub or a mirror (HF_ENDPOINT).

Takes a name and a revision, gives a `Repository`. Tokens come from where huggingface_hub keeps
them (HF_TOKEN, its token file) and from nowhere else. Only the named repository is asked for.
"""

from huggingface_hub import constants, errors
from huggingface_hub.utils import logging, validate_repo_id  # type: ignore[attr-defined]  # its list

from localseek.errors import LocalseekError
from localseek.store.hub.answers import commit_of, described, entry, licence_of, tree
from localseek.store.hub.explaining import explained, no_hub, passing
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
    found = described(repository, revision)
    commit = commit_of(found)
    licence, link = licence_of(found, repository)
    files = _files(repository, commit, found.get("siblings") or [])
    return Repository(repository, commit, licence, link, bool(found.get("gated")), files)


def _files(repository: str, commit: str, listed: object) -> tuple[RemoteFile, ...]:
    if not isinstance(listed, list):
        raise no_hub("it lists no files")
    files = [entry(one, "rfilename", "blobId") for one in listed]
    if None in files:  # a mirror that leaves sizes out of its answer may still list the tree
        several = tree(repository, commit)
        files = [
            entry(one, "path", "oid") for one in several
            if isinstance(one, dict) and one.get("type") == "file"
        ]  # fmt: skip
        if None in files:
            raise no_hub("it leaves out how large its files are")
    return tuple(file for file in files if file is not None)
