"""An encrypted history in the app: the passphrase asked for, refused, done without."""

import sys
from pathlib import Path

import pytest
from scripted import Scripted, thinking_script
from textual.widgets import Input

from localseek.store.history import cipher
from localseek.store.history.database import HistoryError, LockedError
from localseek.store.history.vault import Vault
from tui.screens.unlock import Unlock

SECRET = "SECRET-MARKER"


@pytest.fixture
def vault(temporary_home, monkeypatch):
    """A history with one conversation, encrypted, and locked again."""
    monkeypatch.setattr(cipher, "ITERATIONS", 10)  # a key takes a fifth of a second
    first = Vault()
    with first.open() as history:
        history.add_prompt(history.new("an old question", "nano"), None, "an old question")
    first.encrypt("one")
    return Vault()


def holding(home: Path) -> list[str]:
    files = [path for path in home.rglob("*") if path.is_file()]
    return [path.name for path in files if SECRET.encode() in path.read_bytes()]


async def typed(driver, passphrase: str) -> None:
    driver.app.screen.query_one(Input).value = passphrase
    await driver.pilot.press("enter")


async def test_a_wrong_passphrase_is_asked_for_again_and_the_right_one_opens_all(
    drive, vault, temporary_home
):
    scripted = Scripted(thinking_script("hm", SECRET))
    async with drive(scripted, history=vault.open, vault=vault) as driver:
        await driver.said("The history is encrypted")
        assert scripted.loaded == [], "the model may need a key: it waits"
        await typed(driver, "two")
        await driver.said("The passphrase is wrong.")
        assert driver.app.screen.query_one(Input).value == "" and vault.locked
        await typed(driver, "one")
        await driver.until(lambda: not isinstance(driver.app.screen, Unlock))
        await driver.ready()
        await driver.send(f"tell me {SECRET}")
        await driver.ended()
        await driver.pilot.press("ctrl+r")
        await driver.said("an old question")
        await driver.said(f"tell me {SECRET}")
        await driver.quiet()
    assert holding(temporary_home) == []
    with vault.open() as history:
        assert len(history.search(SECRET)) == 3


async def test_escape_goes_on_without_the_history_and_nothing_is_saved(
    drive, vault, temporary_home
):
    scripted = Scripted(thinking_script("hm", "so"))
    before = vault.path.read_bytes()
    async with drive(scripted, history=vault.open, vault=vault) as driver:
        await driver.said("The history is encrypted")
        await driver.pilot.press("escape")
        await driver.ready()
        await driver.said("The history is locked. What you")
        await driver.send(SECRET)
        await driver.ended()
        await driver.quiet()
        assert driver.scripted.kept == 0
    assert vault.path.read_bytes() == before and holding(temporary_home) == []


async def test_an_app_that_is_left_while_it_asks_ends_at_once(drive, vault):
    before = vault.path.read_bytes()
    async with drive(Scripted(), history=vault.open, vault=vault) as driver:
        await driver.said("The history is encrypted")
        await driver.pilot.press("ctrl+q")
    assert vault.path.read_bytes() == before and vault.locked


async def test_a_damaged_history_is_said_in_place_of_a_passphrase_that_cannot_help(drive, vault):
    def damaged(_passphrase: str) -> None:
        raise HistoryError("The history is damaged.")

    vault.unlock = damaged
    async with drive(Scripted(), history=vault.open, vault=vault) as driver:
        await driver.said("The history is encrypted")
        await typed(driver, "one")
        await driver.said("The history is damaged. What you")
        await driver.ready()


async def test_without_sqlcipher_the_app_says_what_to_install_and_talks_on(
    drive, vault, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sqlcipher3", None)
    with pytest.raises(LockedError, match="not installed"):
        vault.need_library()
    async with drive(Scripted(), history=vault.open, vault=vault) as driver:
        await driver.ready()
        await driver.until(lambda: "not installed" in driver.app.state.unsaved)
        assert not isinstance(driver.app.screen, Unlock)


@pytest.mark.parametrize("size", [(100, 30), (50, 14), (24, 8)])
async def test_the_box_fits_terminals_of_any_size(drive, vault, size):
    async with drive(Scripted(), size, history=vault.open, vault=vault) as driver:
        await driver.until(lambda: isinstance(driver.app.screen, Unlock))
        await driver.said("encrypted")
        line = driver.app.screen.query_one(Input).region
        assert 0 < line.width < size[0] and line.bottom <= size[1]
