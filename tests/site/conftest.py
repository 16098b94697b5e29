"""A built site, a server for it on this machine, and a real browser."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
RUN_TIME_LIMIT_S = 3600


@pytest.fixture(scope="session")
def site() -> Path:
    """The built site: the one named by GUIDEBOOK_SITE, the one `make book` left, or a new one."""
    if named := os.environ.get("GUIDEBOOK_SITE"):
        assert (Path(named) / "index.html").exists(), f"GUIDEBOOK_SITE={named} holds no site"
        return Path(named).resolve()
    built = ROOT / "_build/site"
    if not is_current(built):
        # What `make book` does, in the same folders, so that it finds all of this done.
        run = ROOT / "_build/run"
        guidebook = str(Path(sys.executable).with_name("guidebook"))
        step(guidebook, "run", "--out", str(run))
        step(
            sys.executable,
            str(ROOT / "tools/build_site.py"),
            "--executed",
            str(run / "notebooks"),
            "--out",
            str(built),
        )
    return built


def is_current(site: Path) -> bool:
    """Say whether the site is newer than everything it is made from."""
    entry = site / "index.html"
    if not entry.exists():
        return False
    sources = [ROOT / "_config.yml", ROOT / "_toc.yml", ROOT / "tools/build_site.py"]
    sources += (ROOT / "notebooks").glob("*.ipynb")
    for folder in ("book", "guidebook", "records"):
        sources += (
            path
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        )
    return entry.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def step(*command: str) -> None:
    """Run one step of the build; on failure the test says how its output ended."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_TIME_LIMIT_S,
        check=False,
    )
    ending = "\n".join(done.stdout.splitlines()[-40:])
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{ending}"


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line on the terminal for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        # A browser that leaves a page drops what it was still loading.
        with contextlib.suppress(ConnectionError):
            super().handle()


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """The address of the site on this machine, ending in a slash."""
    handler = functools.partial(QuietHandler, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser; without one, the tests that need it say so and are skipped."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(
            "no Chromium found, so nothing was opened in a browser; "
            "install one (Debian, Ubuntu: sudo apt install chromium)"
        )
    return program


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """A headless browser that does nothing of its own accord."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            headless=True,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        yield browser
        browser.close()
