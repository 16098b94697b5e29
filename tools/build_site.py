"""Build the site from executed notebooks: ``python tools/build_site.py --executed … --out …``.

The sources of a build are put together in a folder of their own (the prose, the
configuration, the executed chapters and their results), Jupyter Book builds them with
warnings as errors, the result is checked, and only then does it take the place of the
site that was there before.

``--toc`` writes the chapters into ``_toc.yml`` and builds nothing.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
PARTS = {
    "1": "Hardware",
    "2": "Set-up",
    "3": "Inference tools",
    "4": "Model optimization",
    "5": "MLOps",
    "6": "Local or cloud",
    "7": "Your plan",
}
CHAPTER_NAME = re.compile(r"[1-7][0-9](-[a-z0-9]+)+")
TOC_BEGIN = "  # chapters: written by tools/build_site.py from the files in notebooks/\n"
TOC_END = "  # end of chapters\n"
# A page with everything it loads, compressed.
PAGE_LIMIT_BYTES = 1_000_000
BUILD_TIME_LIMIT_S = 900


class SiteError(RuntimeError):
    """The site cannot be built; the message says what to do."""


def chapter_names(root: Path = ROOT) -> list[str]:
    """Return the names of all chapters (notebook files without suffix) in reading order.

    Raises
    ------
    SiteError
        There is no chapter, or a notebook's name does not say which part it belongs to.
    """
    names = sorted(path.stem for path in (root / "notebooks").glob("*.ipynb"))
    if not names:
        raise SiteError("There is no notebook in notebooks/, so there is no chapter to show.")
    for name in names:
        if not CHAPTER_NAME.fullmatch(name):
            raise SiteError(
                f"notebooks/{name}.ipynb is not named like a chapter: two digits, the first of "
                "them the part (1 to 7), then lower-case words, such as 42-quantization-gguf."
            )
    return names


def toc_with_chapters(text: str, chapters: Sequence[str]) -> str:
    """Return a table of contents whose chapter block names exactly these chapters."""
    if TOC_BEGIN not in text or TOC_END not in text:
        raise SiteError(
            "_toc.yml has lost the two comment lines between which the chapters are written: "
            f"{TOC_BEGIN.strip()!r} and {TOC_END.strip()!r}."
        )
    before, rest = text.split(TOC_BEGIN)
    after = rest.split(TOC_END)[1]
    lines = []
    for part, caption in PARTS.items():
        files = [name for name in chapters if name.startswith(part)]
        if files:
            lines += [f'  - caption: "{part} · {caption}"\n', "    chapters:\n"]
            lines += [f"      - file: notebooks/{name}\n" for name in files]
    return before + TOC_BEGIN + "".join(lines) + TOC_END + after


def update_toc(root: Path = ROOT) -> bool:
    """Write the chapters into ``_toc.yml``; say whether that changed the file."""
    path = root / "_toc.yml"
    before = path.read_text(encoding="utf-8")
    after = toc_with_chapters(before, chapter_names(root))
    if after == before:
        return False
    path.write_text(after, encoding="utf-8")
    return True


def toc_pages(toc: Path) -> list[str]:
    """Return every page of a table of contents, the landing page first."""

    def files(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if "file" in node:
                yield str(node["file"])
            for value in node.values():
                yield from files(value)
        elif isinstance(node, list):
            for value in node:
                yield from files(value)

    content = yaml.safe_load(toc.read_text(encoding="utf-8"))
    return [str(content["root"]), *files(content)]


def stage(executed: Path, source: Path, root: Path = ROOT) -> None:
    """Put the sources of one build together in ``source``.

    Raises
    ------
    SiteError
        A chapter has not been executed, or its execution failed.
    """
    for name in chapter_names(root):
        _check_executed(executed / f"{name}.ipynb", name)
    shutil.rmtree(source, ignore_errors=True)
    (source / "notebooks").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(root / name, source / name)
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("__pycache__"))
    if (root / "records").is_dir():
        shutil.copytree(root / "records", source / "records")
    for name in chapter_names(root):
        stage_chapter(executed / f"{name}.ipynb", source / "notebooks")
        result = executed.parent / "results" / f"{name}.json"
        if result.exists():
            (source / "results").mkdir(exist_ok=True)
            shutil.copy2(result, source / "results")


def stage_chapter(executed: Path, folder: Path) -> None:
    """Copy an executed chapter as a page shows it.

    A cell that prints piece by piece leaves an output for each piece; together they are one
    text. What papermill notes about its run (times, file names) belongs to the run, and the state
    of widgets to a kernel that no page has.
    """
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    for name in ("papermill", "widgets"):
        notebook["metadata"].pop(name, None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        merged: list[dict[str, Any]] = []
        for output in cell.get("outputs", []):
            last = merged[-1] if merged else {}
            if output["output_type"] == "stream" and output["name"] == last.get("name"):
                last["text"] = "".join(last["text"]) + "".join(output["text"])
            else:
                merged.append(output)
        if cell["cell_type"] == "code":
            cell["outputs"] = merged
    text = json.dumps(notebook, ensure_ascii=False, indent=1)
    (folder / executed.name).write_text(f"{text}\n", encoding="utf-8")


def _check_executed(path: Path, name: str) -> None:
    if not path.exists():
        raise SiteError(
            f"The chapter {name} has not been executed: {path} is not there. "
            f"Run `guidebook run {name} --out {path.parent.parent}` first, or `make book`."
        )
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError) as error:
        raise SiteError(f"{path} is not a notebook; run the chapter again.") from error
    code = [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"])]
    if any(output["output_type"] == "error" for cell in code for output in cell["outputs"]):
        raise SiteError(f"The chapter {name} failed when it was executed; {path} shows where.")
    if any(cell["execution_count"] is None for cell in code):
        raise SiteError(f"The chapter {name} has cells that were not executed; run it again.")


def run_jupyter_book(source: Path, work: Path, log: Path) -> Path:
    """Build ``source`` and return the folder with the pages; the whole output goes to ``log``."""
    shutil.rmtree(work, ignore_errors=True)
    if importlib.util.find_spec("jupyter_book") is None:
        raise SiteError("Jupyter Book is not installed; `make book` installs it.")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(source), "--path-output", str(work), "-W", "-n", "--keep-going"]
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("w", encoding="utf-8") as stream:
            done = subprocess.run(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                timeout=BUILD_TIME_LIMIT_S,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise SiteError(
            f"Jupyter Book had not finished after {BUILD_TIME_LIMIT_S} s; see {log}."
        ) from error
    if done.returncode != 0:
        raise SiteError(_failure(log))
    return work / "_build" / "html"


def _failure(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    marked = [line for line in lines if re.search(r"WARNING:|ERROR:|exception:", line)]
    shown = "\n".join(f"  {line}" for line in (marked or lines[-30:]))
    return f"Jupyter Book refused the pages (warnings count as errors):\n{shown}\nWhole log: {log}"


# --- checks of the pages ------------------------------------------------------------------------

_RESOURCE_ATTRIBUTES = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "track": ("src",),
    "input": ("src",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
# Other kinds of <link>, such as "next" or "canonical", load nothing.
_LOADING_LINKS = {
    "stylesheet",
    "icon",
    "apple-touch-icon",
    "manifest",
    "preload",
    "prefetch",
    "modulepreload",
    "preconnect",
    "dns-prefetch",
}
_CSS_URL = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s;]+)""")


@dataclass
class _Resources(HTMLParser):
    """Collects what a page loads."""

    found: list[str] = field(default_factory=list)
    _in_style: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        for name in _RESOURCE_ATTRIBUTES.get(tag, ()):
            if values.get(name):
                self.found += (
                    re.split(r",\s+", values[name]) if name == "srcset" else [values[name]]
                )
        if tag == "link" and _LOADING_LINKS & set(values.get("rel", "").split()):
            self.found.append(values.get("href", ""))
        self.found += _CSS_URL.findall(values.get("style", ""))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - HTMLParser calls it so
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found += _CSS_URL.findall(data)


def page_resources(html: str) -> list[str]:
    """Return the addresses that a browser fetches for a page without being asked."""
    parser = _Resources()
    parser.feed(html)
    return [address.strip() for address in parser.found if address.strip()]


def is_outside(address: str) -> bool:
    """Say whether an address leaves the site."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in {"http", "https", "ftp", "ws", "wss"}


def check(site: Path, pages: Sequence[str]) -> None:
    """Check a built site; a finding raises :class:`SiteError`.

    Every page of the table of contents is there, and nothing that a page or a style sheet
    loads comes from another host.
    """
    findings = [f"{page}.html is missing" for page in pages if not (site / f"{page}.html").exists()]
    for path in sorted(site.rglob("*.html")):
        addresses = page_resources(path.read_text(encoding="utf-8"))
        findings += [
            f"{path.relative_to(site)} loads {address}"
            for address in addresses
            if is_outside(address)
        ]
    for path in sorted(site.rglob("*.css")):
        addresses = _CSS_URL.findall(path.read_text(encoding="utf-8"))
        findings += [
            f"{path.relative_to(site)} loads {address}"
            for address in addresses
            if is_outside(address)
        ]
    if findings:
        raise SiteError("The built site is not complete and self-contained: " + "; ".join(findings))


def page_weight(page: Path) -> int:
    """Return the compressed bytes of a page with the local files that it loads."""
    html = page.read_text(encoding="utf-8")
    files = {page}
    for address in page_resources(html):
        path = urlsplit(address).path
        if path and not address.startswith("data:"):
            files.add((page.parent / path).resolve())
    return sum(len(gzip.compress(path.read_bytes())) for path in files if path.is_file())


# --- the whole ----------------------------------------------------------------------------------


def write_entry(site: Path, pages: Sequence[str], root: Path = ROOT) -> None:
    """Write ``index.html`` at the top, which leads to the landing page at once."""
    title = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["title"]
    links = "".join(
        f'<li><a href="{page}.html">{escape(_title(site / f"{page}.html"))}</a></li>'
        for page in pages
    )
    (site / "index.html").write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="0; url={pages[0]}.html">
<link rel="canonical" href="{pages[0]}.html">
<title>{escape(title)}</title>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<ul>{links}</ul>
</main>
</body>
</html>
""",
        encoding="utf-8",
    )


def _title(page: Path) -> str:
    match = re.search(r"<h1>(.*?)<a class=\"headerlink\"", page.read_text(encoding="utf-8"), re.S)
    return re.sub(r"<[^>]+>", "", match[1]).strip() if match else page.stem


def replace(new: Path, out: Path) -> None:
    """Put ``new`` in the place of ``out``; the old site stays until the new one is complete."""
    old = out.with_name(f".{out.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def build(executed: Path, out: Path, root: Path = ROOT) -> str:
    """Build the site and return a sentence that says where it is and how large."""
    started = time.monotonic()
    executed, out = executed.resolve(), out.resolve()
    if out.exists() and not (out / "_static").is_dir() and any(out.iterdir()):
        raise SiteError(f"{out} holds something that is not a site; choose an empty folder.")
    if update_toc(root):
        print("_toc.yml: chapters updated from notebooks/; commit the change.", flush=True)
    source, work, log = out.parent / "source", out.parent / "sphinx", out.parent / "site.log"
    stage(executed, source, root)
    pages = toc_pages(source / "_toc.yml")
    print(f"Building {len(pages)} pages with Jupyter Book (log: {_short(log)}) …", flush=True)
    html = run_jupyter_book(source, work, log)
    write_entry(html, pages, root)
    check(html, pages)
    weights = {page: page_weight(html / f"{page}.html") for page in pages}
    heaviest = max(weights, key=lambda page: weights[page])
    if weights[heaviest] > PAGE_LIMIT_BYTES:
        raise SiteError(
            f"{heaviest}.html loads {weights[heaviest] / 1e6:.2f} MB compressed; the limit is "
            f"{PAGE_LIMIT_BYTES / 1e6:.0f} MB. Large outputs are the usual reason."
        )
    total = sum(path.stat().st_size for path in html.rglob("*") if path.is_file())
    replace(html, out)
    return (
        f"{len(pages)} pages, {total / 1e6:.1f} MB, no page above "
        f"{weights[heaviest] / 1e6:.2f} MB compressed, {time.monotonic() - started:.0f} s.\n"
        f"Site: {_short(out / 'index.html')}"
    )


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description="Build the site from executed notebooks.")
    parser.add_argument("--executed", type=Path, default=ROOT / "_build/run/notebooks")
    parser.add_argument("--out", type=Path, default=ROOT / "_build/site")
    parser.add_argument("--toc", action="store_true", help="only write the chapters into _toc.yml")
    options = parser.parse_args(arguments)
    try:
        if options.toc:
            print("_toc.yml: updated." if update_toc() else "_toc.yml: names every chapter.")
        else:
            print(build(options.executed, options.out))
    except SiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
