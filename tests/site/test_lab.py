"""A chapter in JupyterLab, run by a browser as a reader runs it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbformat.reader import NotJSONError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.site, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = "11-your-machine.ipynb"
START_LIMIT_S = 90
RUN_LIMIT_S = 420
STOP_LIMIT_S = 20
SAVE_LIMIT_S = 10
# A notification asking about news would lie over the menu, and the news come from elsewhere.
SETTINGS = {
    "apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    }
}


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    address: str
    token: str
    folder: Path

    def ask(self, path: str, method: str = "GET") -> Any:
        """Call the server's interface and return the answer."""
        request = urllib.request.Request(
            f"{self.address}api/{path}",
            headers={"Authorization": f"token {self.token}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            content = answer.read()
        return json.loads(content) if content else None


@pytest.fixture
def lab(chromium: str, tmp_path: Path) -> Iterator[Lab]:
    """JupyterLab on a copy of the chapters without outputs; stopped whatever happens."""
    folder = tmp_path / "notebooks"
    shutil.copytree(
        ROOT / "notebooks",
        folder,
        ignore=shutil.ignore_patterns("results", ".ipynb_checkpoints"),
    )
    strip(folder / CHAPTER)
    home = tmp_path / "jupyter"
    for name, content in SETTINGS.items():
        setting = home / "settings/@jupyterlab" / name
        setting.parent.mkdir(parents=True)
        setting.write_text(json.dumps(content))
    runtime = home / "runtime"
    log = tmp_path / "lab.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--ServerApp.ip=127.0.0.1",
                "--ServerApp.port=0",
                f"--ServerApp.root_dir={folder}",
                *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            ],
            cwd=folder,
            env={
                **os.environ,
                "JUPYTER_CONFIG_DIR": str(home / "config"),
                "JUPYTER_RUNTIME_DIR": str(runtime),
                "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
                "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            },
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield wait_for_lab(process, runtime, folder, log)
    finally:
        stop(process, runtime)


def strip(path: Path) -> None:
    """Remove outputs and counts, so that what is found afterwards comes from this run."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
    nbformat.write(notebook, path)


def server_file(runtime: Path) -> dict[str, Any] | None:
    """Return what the server wrote about itself: port and token."""
    for path in runtime.glob("jpserver-*.json"):
        with contextlib.suppress(ValueError):
            return json.loads(path.read_text())
    return None


def wait_for_lab(process: subprocess.Popen[bytes], runtime: Path, folder: Path, log: Path) -> Lab:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        said = log.read_text(errors="replace")[-3000:]
        assert process.poll() is None, f"JupyterLab stopped at its start:\n{said}"
        if info := server_file(runtime):
            lab = Lab(f"http://127.0.0.1:{info['port']}/", info["token"], folder)
            with contextlib.suppress(OSError):
                lab.ask("status")
                return lab
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not answer within {START_LIMIT_S} s:\n{log.read_text()[-3000:]}")


def stop(process: subprocess.Popen[bytes], runtime: Path) -> None:
    """Stop the server and its kernels: politely, then with the whole group."""
    if info := server_file(runtime):
        with contextlib.suppress(OSError):
            Lab(f"http://127.0.0.1:{info['port']}/", info["token"], runtime).ask("shutdown", "POST")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finished(path: Path) -> bool:
    """Say whether the saved notebook has a count in every code cell, or an error in one."""
    cells = code_cells(path)
    return any(errors(cell) for cell in cells) or all(cell.execution_count for cell in cells)


def code_cells(path: Path) -> list[Any]:
    deadline = time.monotonic() + SAVE_LIMIT_S
    while True:
        try:
            notebook = nbformat.read(path, as_version=4)
            break
        except NotJSONError:  # JupyterLab is saving it at this moment
            assert time.monotonic() < deadline, f"{path.name} is no notebook"
            time.sleep(0.1)
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def errors(cell: Any) -> list[str]:
    return [
        f"{output.ename}: {output.evalue}"
        for output in cell.outputs
        if output.output_type == "error"
    ]


def test_chapter_11_runs_in_jupyterlab_from_the_first_cell_to_the_last(lab: Lab, browser: Browser):
    path = lab.folder / CHAPTER
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    outside: list[str] = []

    def guard(route: Any) -> None:
        if route.request.url.startswith((lab.address, "data:", "blob:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    try:
        page = context.new_page()
        page.goto(f"{lab.address}lab/tree/{CHAPTER}?token={lab.token}")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=90_000)
        # The page's requests are answered only while the browser is being driven, so the test
        # waits through the page and never sleeps.
        deadline = time.monotonic() + START_LIMIT_S
        while not any(kernel["execution_state"] == "idle" for kernel in lab.ask("kernels")):
            assert time.monotonic() < deadline, "the kernel did not start"
            page.wait_for_timeout(300)
        page.locator(".lm-MenuBar-item", has_text="Run").first.click()
        page.locator(".lm-Menu-item", has_text="Run All Cells").first.click()
        deadline = time.monotonic() + RUN_LIMIT_S
        while not finished(path):
            assert time.monotonic() < deadline, "the cells had not finished in time"
            page.wait_for_timeout(1000)
            page.keyboard.press("Control+s")
        problems = [problem for cell in code_cells(path) for problem in errors(cell)]
        assert problems == []
        shown = page.locator(".jp-Notebook .jp-OutputArea-output").count()
        assert shown > 0, "JupyterLab shows no output"
        assert not page.locator("[data-mime-type='application/vnd.jupyter.error']").count()
    finally:
        context.close()
    cells = code_cells(path)
    assert len(cells) >= 5
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert (lab.folder / f"results/{path.stem}.json").exists()
    assert outside == []
