"""A real headless browser for pages: the system's Chromium, which is installed where tests run as root on Debian."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str:
    """Return where the browser is, or skip the test."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        done = subprocess.run(
            ["apt-get", "install", "-y", "-q", "chromium"], capture_output=True, text=True, check=False
        )
        found = shutil.which("chromium")
        if found is None:
            pytest.skip(f"Chromium is not here and could not be installed: {done.stderr.strip()[-200:]}")
    if found is None:
        pytest.skip("Chromium is not here, and only root on Debian can install it")
    return found


@dataclass
class Seen:
    """What a browser noticed besides the page.

    Attributes:
        problems: Messages of its console, and errors of scripts.
        requests: Addresses outside the file that were asked for.
    """

    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def launched() -> Iterator["Browser"]:
    """Start a browser, which opens any number of pages."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(file: Path, browser: "Browser | None" = None, **options: Any) -> Iterator[tuple["Page", Seen]]:
    """Open a page, and note what goes wrong and what it asks a network for.

    Args:
        file: The page.
        browser: Where it is opened, with nothing kept of other pages; None for a browser of its own.
        options: Of the window: viewport, color_scheme, java_script_enabled.
    """
    seen = Seen()
    with launched() if browser is None else nullcontext(browser) as used:
        page = used.new_page(**{"viewport": {"width": 1100, "height": 900}, **options})
        page.on("console", lambda message: seen.problems.append(message.text))
        page.on("pageerror", lambda error: seen.problems.append(str(error)))
        page.on("request", lambda asked: inside(asked.url, file) or seen.requests.append(asked.url))
        page.goto(file.absolute().as_uri())
        yield page, seen
        page.close()


def inside(address: str, file: Path) -> bool:
    """Return whether an address is the page itself, or held by it."""
    return address.startswith(("data:", file.absolute().as_uri()))
