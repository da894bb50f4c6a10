import json
import os
import pty
import select
import sys
from collections.abc import Iterator
from time import monotonic

import keyring
import pytest
from keyring.backend import KeyringBackend

from localseek.commands.parts import unlocking
from localseek.store.history import cipher
from localseek.store.history.history import History
from localseek.store.history.vault import Vault

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Derive keys in no time; a test with a process of its own, and one of the store's, do not."""
    monkeypatch.setattr(cipher, "ITERATIONS", 10)


@pytest.fixture
def typed(monkeypatch) -> list[str]:
    """What somebody types where a passphrase is asked for; the questions are kept beside it."""
    answers: list[str] = []
    monkeypatch.setattr(unlocking, "ask", lambda question: answers.pop(0))
    monkeypatch.setattr(unlocking, "has_terminal", lambda: True)
    return answers


@pytest.fixture
def talked(run_cli):
    run_cli("chat", "-q", "-s", "Be brief.", stdin=b"say one\nsay two\n")
    return run_cli


def shown(run_cli) -> str:
    return run_cli("history", "show", "say one").out


def test_encrypting_and_decrypting_keep_every_word(talked, typed):
    before = shown(talked)
    typed += ["secrets!", "secrets!"]
    outcome = talked("history", "encrypt")
    assert outcome.err.splitlines() == [
        "Without the passphrase nobody can read the history again, you included.",
        f"Encrypted: {Vault().path}.",
    ]
    typed += ["secrets!"]
    assert shown(talked) == before
    typed += ["secrets!"]
    assert "Not encrypted any more: " in talked("history", "decrypt").err
    assert shown(talked) == before and typed == []


def test_what_an_app_that_failed_left_in_plain_is_named(talked, typed, home):
    (home / "recovered").mkdir()
    (home / "recovered" / "one.md").write_text("words")
    typed += ["secret", "secret"]
    assert f"Not encrypted: what is in {home / 'recovered'}." in talked("history", "encrypt").err


def test_ask_and_chat_ask_for_it_and_go_on(talked, typed):
    typed += ["secret", "secret"]
    talked("history", "encrypt")
    typed += ["secret"]
    assert talked("ask", "-q", "--continue", "say three").out == "three\n"
    typed += ["secret"]
    assert talked("chat", "-q", "--continue", stdin=b"say four\n").out == "four\n"
    assert talked("ask", "-q", "say five").out == "five\n", "nothing is saved: nothing is asked"
    typed += ["secret"]
    assert [line for line in shown(talked).splitlines() if line.startswith("> ")][1:] == [
        "> say two", "> say three", "> say four",
    ]  # fmt: skip


def test_three_wrong_ones_end_in_one_line_and_chat_talks_on_unsaved(talked, typed):
    typed += ["secret", "secret"]
    talked("history", "encrypt")
    before = Vault().path.read_bytes()
    typed += ["a", "b", "c"]
    outcome = talked("history", "list")
    assert outcome.status == 1
    assert outcome.err.splitlines()[:2] == ["The passphrase is wrong."] * 2
    assert outcome.err.splitlines()[2].startswith("localseek: The passphrase is wrong: it does")
    typed += ["a", ""]
    outcome = talked("chat", "-q", stdin=b"say one\n")
    assert (outcome.status, outcome.out) == (0, "one\n")
    assert outcome.err.splitlines()[-1] == (
        "The history stays locked: no passphrase was given. This conversation is not saved."
    )
    assert Vault().path.read_bytes() == before


def test_another_passphrase_takes_the_place_of_the_first(talked, typed):
    typed += ["secret", "secret"]
    talked("history", "encrypt")
    typed += ["secret", "other", "other"]
    assert talked("history", "encrypt").err.endswith("The passphrase is another one now.\n")
    typed += ["secret", "other"]
    assert "say one" in talked("history", "list").out and typed == []


@pytest.mark.parametrize(
    ("answers", "words"),
    [(["a", "b"], "The two passphrases differ."), ([""], "has at least one character.")],
)
def test_a_passphrase_that_cannot_be_meant_changes_nothing(talked, typed, answers, words):
    typed += answers
    outcome = talked("history", "encrypt")
    assert outcome.status == 2 and words in outcome.err and "Nothing was changed." in outcome.err
    assert not Vault().encrypted


def test_a_short_passphrase_is_taken_with_a_note(talked, typed):
    typed += ["7 chars", "7 chars"]
    outcome = talked("history", "encrypt")
    assert outcome.status == 0 and "fewer than 8 characters is soon guessed" in outcome.err


def test_a_new_passphrase_of_several_lines_is_refused(talked, tmp_path):
    file = tmp_path / "p"
    file.write_text("one line\nanother\n")
    file.chmod(0o600)
    outcome = talked("history", "encrypt", "--new-passphrase-file", str(file))
    assert outcome.status == 2 and f"{file} holds several lines." in outcome.err
    assert not Vault().encrypted


def test_a_plain_history_without_a_terminal_is_not_called_encrypted(talked, monkeypatch):
    monkeypatch.setattr(unlocking, "has_terminal", lambda: False)
    outcome = talked("history", "encrypt")
    assert outcome.status == 2
    assert outcome.err == (
        "localseek: There is no terminal to ask for a new passphrase. "
        "--new-passphrase-file names a file that holds it.\n"
    )


def test_a_backup_that_is_a_hard_link_stays_and_is_told(talked, typed, tmp_path):
    os.link(Vault().path, tmp_path / "backup")
    typed += ["secrets!", "secrets!"]
    outcome = talked("history", "encrypt", "--json")
    assert "The file before has other names" in outcome.err and "it is in plain." in outcome.err
    assert json.loads(outcome.out) == {
        "path": str(Vault().path), "encrypted": True, "overwritten": False,
    }  # fmt: skip
    with History(tmp_path / "backup") as history:
        assert [one.title for one in history.conversations()] == ["say one"]


def test_a_plain_history_has_nothing_to_decrypt(talked):
    outcome = talked("history", "decrypt")
    assert outcome.status == 2 and outcome.err.endswith("is not encrypted.\n")


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [(b"secret\n", 0o644, "Others can read"), (b"", 0o600, "holds no passphrase"),
     (b"\xff\xfe", 0o600, "holds no passphrase"), (b"x" * 5000, 0o600, "holds no passphrase"),
     (None, 0, "cannot be read: No such file")],
)  # fmt: skip
def test_a_passphrase_file_that_cannot_be_meant_is_named(
    talked, monkeypatch, tmp_path, content, mode, words
):
    file = tmp_path / "p"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    monkeypatch.setenv("LOCALSEEK_PASSPHRASE_FILE", str(file))
    outcome = talked("history", "encrypt")
    assert outcome.status == 2 and words in outcome.err and str(file) in outcome.err
    assert not Vault().encrypted


def test_a_descriptor_gives_the_passphrase_and_a_file_the_new_one(talked, monkeypatch, tmp_path):
    read, write = os.pipe()
    os.write(write, b"secret\n")
    os.close(write)
    monkeypatch.setenv("LOCALSEEK_PASSPHRASE_FILE", f"/dev/fd/{read}")
    assert talked("history", "encrypt").status == 0
    os.close(read)
    for name in ("secret", "other"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("LOCALSEEK_PASSPHRASE_FILE", str(tmp_path / "secret"))
    new = ("--new-passphrase-file", str(tmp_path / "other"))
    assert talked("history", "encrypt", *new).status == 0
    outcome = talked("history", "list")
    assert outcome.status == 1 and "The passphrase is wrong" in outcome.err
    monkeypatch.setenv("LOCALSEEK_PASSPHRASE_FILE", str(tmp_path / "other"))
    assert "say one" in talked("history", "list").out


def test_without_the_extra_encrypt_says_what_to_install(talked, monkeypatch):
    monkeypatch.setitem(sys.modules, "sqlcipher3", None)
    outcome = talked("history", "encrypt")
    assert outcome.status == 1
    assert outcome.err == (
        'localseek: SQLCipher is not installed. Install it: pip install "localseek[encrypt]".\n'
    )


class Ring(KeyringBackend):
    priority = 1
    name = "a ring"

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def ring() -> Iterator[Ring]:
    before, ours = keyring.get_keyring(), Ring()
    keyring.set_keyring(ours)
    yield ours
    keyring.set_keyring(before)


def test_the_keyring_opens_the_history_and_forgets_when_it_is_told_to(talked, typed, ring, home):
    typed += ["secret", "secret"]
    assert talked("history", "encrypt", "--keyring").err.endswith("a ring keeps the passphrase.\n")
    assert list(ring.kept.values()) == ["secret"]
    assert "say one" in talked("history", "list").out, "nobody was asked"
    typed += ["other", "other"]
    talked("history", "encrypt")
    assert ring.kept == {} and not (home / "history" / "keyring").exists()
    typed += ["other", "third", "third"]
    talked("history", "encrypt", "--keyring")
    talked("history", "decrypt")
    assert ring.kept == {} and "say one" in talked("history", "list").out


def test_a_keyring_that_lost_it_leaves_the_terminal_to_be_asked(talked, typed, ring):
    typed += ["secret", "secret"]
    talked("history", "encrypt", "--keyring")
    ring.kept.clear()
    typed += ["secret"]
    outcome = talked("history", "list")
    assert "has no passphrase of the history any more" in outcome.err and "say one" in outcome.out


def test_without_a_keyring_the_option_is_refused_before_anything_is_done(talked, ring):
    ring.__class__.priority, kept = 0, ring.__class__.priority
    try:
        outcome = talked("history", "encrypt", "--keyring")
    finally:
        ring.__class__.priority = kept
    assert outcome.status == 2 and "There is no system keyring here" in outcome.err
    assert not Vault().encrypted


def test_on_a_terminal_the_passphrase_is_asked_for_and_not_echoed(command, environment):
    with History() as history:
        history.new("a question", "nano")

    def run(*words: str, answers: list[str]) -> tuple[int, str]:
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(command[0], [*command, *words], environment)
        seen, deadline = b"", monotonic() + PATIENCE_S
        while monotonic() < deadline:
            if not select.select([terminal], [], [], 0.2)[0]:
                continue
            try:
                seen += os.read(terminal, 4096)
            except OSError:  # the program has ended
                break
            if answers and seen.rstrip(b" ").endswith(b":"):
                os.write(terminal, answers.pop(0).encode() + b"\n")
                seen += b"\n"
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
        return status, seen.decode()

    status, seen = run("history", "encrypt", answers=["pässword", "pässword"])
    assert status == 0 and "New passphrase:" in seen and "once more:" in seen
    assert "ssword" not in seen and Vault().encrypted
    status, seen = run("history", "list", answers=["wrong", "pässword"])
    assert status == 0 and "The passphrase is wrong." in seen and "a question" in seen


def test_without_a_terminal_it_is_said_how_to_give_it(talked, monkeypatch):
    vault = Vault()
    vault.encrypt("secret")

    def none(*_: object) -> int:
        raise OSError(6, "No such device or address")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", none)
        with pytest.raises(unlocking.LockedError, match="no terminal.*LOCALSEEK_PASSPHRASE_FILE"):
            unlocking.ask("")
