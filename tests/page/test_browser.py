"""The agent's page in a real browser: a whole move, an agent that is killed, and an undo."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from rig.browser import browser
from rig.plex.commands import SERVER, PlexCommands, agent_with_plex, plex_commands
from rig.programs import Puller
from rig.virtual_machine import REPOSITORY
from rig.waiting import wait_until
from selenium.webdriver.common.by import By

from bench.plexlibrary import LibraryShape, make_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rig.programs import Agent
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

AXE = REPOSITORY / "build" / "tools" / "axe.min.js"
PICTURES = REPOSITORY / "build" / "page"
"""Pictures of the moments of a move, which ``make screenshots`` copies to docs/."""
WIDE, PHONE = (1000, 1300), (390, 1300)
RATE = 'rate = "6MB/s"\n'
"""Slow enough to see the transfer."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Start a browser."""
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        driver.set_window_size(*WIDE)
        yield driver


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return the library of a small Plex that takes some seconds at that rate."""
    library = tmp_path / "vm" / "Library"
    make_library(library, LibraryShape(1_500, 60_000_000, 6_000_000))
    return library


@pytest.fixture
def plex(tmp_path: Path, library: Path) -> Iterator[PlexCommands]:
    """Start a Plex that runs and writes."""
    with plex_commands(tmp_path / "plex", library / SERVER) as plex:
        yield plex


@pytest.fixture
def agent(
    new_agent: Callable[[Path], Agent], library: Path, plex: PlexCommands, tmp_path: Path
) -> Agent:
    """Start an agent that can stop and start that Plex."""
    settings = plex.settings(tmp_path)
    settings.write_text(RATE + settings.read_text())
    return agent_with_plex(new_agent, library, settings)


@pytest.fixture
def puller(agent: Agent, target: Path, tmp_path: Path) -> Puller:
    """Return a puller that moves."""
    return Puller(target, tmp_path / "puller.log", agent.pairing, cutover=True)


def sign_in(driver: Chrome, agent: Agent, token: str) -> None:
    """Open the page, and send the form."""
    driver.delete_all_cookies()
    driver.get(agent.url)
    driver.find_element(By.ID, "token").send_keys(token)
    click(driver, "form button")


def click(driver: Chrome, button: str) -> None:
    """Click a button that sends a form, and wait for the page after it."""
    driver.execute_script("window.isOld = true")
    driver.find_element(By.CSS_SELECTOR, button).click()
    is_new = "return !window.isOld && document.readyState === 'complete'"
    wait_until(lambda: driver.execute_script(is_new), 30, what="another page", every=0.05)


def words(driver: Chrome, element: str) -> str:
    """Return what is seen of an element."""
    script = (
        "const it = document.getElementById(arguments[0]); return it.hidden ? '' : it.innerText"
    )
    return str(driver.execute_script(script, element))


def position(driver: Chrome) -> float:
    """Return how far the progress bar is.

    One script finds and reads it: the page may replace an element between two requests.
    """
    return float(driver.execute_script("return document.querySelector('progress').value"))


def wait_for(driver: Chrome, element: str, text: str, seconds: float = 40) -> None:
    """Wait until an element says so."""
    wait_until(
        lambda: text in words(driver, element), seconds, what=f"{text!r} in {element}", every=0.1
    )


def faults(driver: Chrome) -> list[Any]:
    """Return what axe-core finds at both widths, in both color schemes."""
    found = []
    driver.execute_script(AXE.read_text())
    for size in (WIDE, PHONE):
        driver.set_window_size(*size)
        for scheme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
            result = driver.execute_async_script("axe.run().then(arguments[0])")
            found += [
                (size, scheme, each["id"], each["nodes"][0]["html"])
                for each in result["violations"]
            ]
            assert len(result["passes"]) > 5
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    width = driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= PHONE[0], "the page is wider than a phone"
    driver.set_window_size(*WIDE)
    return found


def said(driver: Chrome) -> list[str]:
    """Return what the browser complains about, without the responses that a test provokes."""
    return [
        each["message"]
        for each in driver.execute("getLog", {"type": "browser"})["value"]
        if each["level"] == "SEVERE" and "Failed to load resource" not in each["message"]
    ]


def keep_picture(driver: Chrome, name: str) -> None:
    """Save what is seen."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(PICTURES / f"page-{name}.png"))


def test_wrong_token(driver: Chrome, agent: Agent) -> None:
    """It gets the form again, which says so; the right one opens the page."""
    sign_in(driver, agent, "wrong")
    assert "not valid" in driver.find_element(By.CSS_SELECTOR, "[role=alert]").text
    assert driver.get_cookies() == []
    assert faults(driver) == []
    sign_in(driver, agent, agent.pairing)
    header = driver.execute_script("return document.querySelector('header').innerText")
    assert str(agent.library) in header
    assert said(driver) == []


def test_whole_move_and_undo(
    driver: Chrome, agent: Agent, plex: PlexCommands, puller: Puller
) -> None:
    """The page follows a move to its commit without being loaded again, and undoes it."""
    sign_in(driver, agent, agent.token)
    driver.execute_script("window.isStillHere = true")
    running = puller.begin()
    wait_for(driver, "transfer", "MiB of")
    wait_for(driver, "now", "Copied while Plex runs")
    wait_for(driver, "puller", "is at work")
    seen = position(driver)
    wait_until(lambda: position(driver) > seen, what="progress")
    assert faults(driver) == []
    keep_picture(driver, "copying")
    wait_for(driver, "timeline", "Committed done")
    assert puller.finished(running).code == 0
    wait_for(driver, "timeline", "Published on the volume done")
    wait_for(driver, "plex", "is stopped")
    assert not plex.is_running()
    assert faults(driver) == []
    keep_picture(driver, "moved")

    search = driver.find_element(By.ID, "filter")
    search.send_keys("COMMITTED")
    shown = words(driver, "log").splitlines()
    assert len(shown) == 1
    assert "Committed snapshot" in shown[0]

    driver.find_element(By.ID, "confirmation").send_keys("undo")
    click(driver, ".danger button")
    plex.wait_until(running=True)
    wait_for(driver, "would", "There is nothing to undo.")
    wait_until(lambda: not words(driver, "undo"), 30, what="no form", every=0.1)
    wait_for(driver, "plex", "runs")
    assert faults(driver) == []
    keep_picture(driver, "undone")
    assert said(driver) == []


def test_agent_that_is_killed_and_back(driver: Chrome, agent: Agent, puller: Puller) -> None:
    """Without the agent the page says so and keeps what it showed; it continues by itself."""
    sign_in(driver, agent, agent.token)
    driver.execute_script("window.isStillHere = true")
    agent.kill()
    wait_for(driver, "offline", "does not answer")
    assert "Paired" in words(driver, "timeline")
    agent.start()
    wait_until(lambda: words(driver, "offline") == "", 30, what="the agent to be back")
    running = puller.begin()
    wait_for(driver, "timeline", "Published on the volume done")
    assert puller.finished(running).code == 0
    assert driver.execute_script("return window.isStillHere")


def test_new_pairing_ends_the_session(driver: Chrome, agent: Agent) -> None:
    """A page that is open shows the form as soon as something happens after a new pairing."""
    sign_in(driver, agent, agent.token)
    agent.pair()
    agent.kill()
    agent.start()
    wait_until(lambda: driver.find_elements(By.ID, "token"), 30, what="the form")


def test_silent_puller(driver: Chrome, agent: Agent) -> None:
    """Without a puller the page works, and says so."""
    sign_in(driver, agent, agent.token)
    assert "has asked for nothing" in words(driver, "puller")
    wait_for(driver, "rate", "0 bytes/s now")


@contextmanager
def plain_browser(profile: Path) -> Iterator[Chrome]:
    """Start a browser that runs no scripts, and waits for an element that is not there yet."""
    with browser(profile, "--blink-settings=scriptEnabled=false") as driver:
        driver.implicitly_wait(20)
        yield driver


def test_page_without_javascript(
    agent: Agent, plex: PlexCommands, puller: Puller, tmp_path: Path
) -> None:
    """Sign-in, state and undo work without a script."""
    assert puller.pull().code == 0
    with plain_browser(tmp_path / "profile") as driver:
        driver.get(agent.url)
        driver.find_element(By.ID, "token").send_keys(agent.token)
        driver.find_element(By.TAG_NAME, "button").click()
        assert "Committed" in driver.find_element(By.ID, "timeline").text
        assert not driver.find_element(By.ID, "search").is_displayed()
        driver.find_element(By.ID, "confirmation").send_keys("undo")
        click(driver, ".danger button")
        plex.wait_until(running=True)
        driver.get(agent.url)
        assert "Undoing the cutover" in driver.find_element(By.ID, "log").text
