"""Every page of the built site, opened in a real browser."""

from __future__ import annotations

import functools
import gzip
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

import build_site
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import (
        Browser,
        ConsoleMessage,
        Page,
        Response,
        Route,
        ViewportSize,
    )

pytestmark = pytest.mark.site

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*build_site.toc_pages(ROOT / "_toc.yml"), "search"]
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
WIDTHS: dict[str, ViewportSize] = {
    "desktop": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
}


@dataclass
class Visit:
    """An opened page and what happened while it loaded."""

    page: Page
    problems: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    loaded: list[Response] = field(default_factory=list)


@dataclass(frozen=True)
class View:
    """What a browser has found on one page at one width in one mode."""

    problems: list[str]
    outside: list[str]
    compressed_bytes: int
    heading: str
    theme: str
    images: list[tuple[str, bool, str | None]]
    figures: list[tuple[str | None, str]]
    excess_width: int
    too_wide: list[str]
    axe_looked_at: int
    violations: list[str]


Open = Callable[..., "Visit"]
Look = Callable[[str, str, str], View]


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Open]:
    """Open pages of the site; every request to another host is refused and noted."""
    with opener(browser, address) as open_page:
        yield open_page


@pytest.fixture(scope="session")
def look(browser: Browser, address: str) -> Look:
    """Open a page once for each width and mode, and remember what was found."""

    @functools.cache
    def look_at(name: str, width: str, mode: str) -> View:
        with opener(browser, address) as open_page:
            return examine(open_page(name, width=WIDTHS[width], mode=mode))

    return look_at


@contextmanager
def opener(browser: Browser, address: str) -> Iterator[Open]:
    """Yield a function that opens pages, each in a context of its own."""
    contexts = []

    def open_page(
        name: str,
        *,
        width: ViewportSize = WIDTHS["desktop"],
        mode: str = "light",
        javascript: bool = True,
    ) -> Visit:
        context = browser.new_context(
            viewport=width, color_scheme=mode, java_script_enabled=javascript
        )
        contexts.append(context)
        context.set_default_timeout(30_000)
        visit = Visit(context.new_page())

        def guard(route: Route) -> None:
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                visit.outside.append(route.request.url)
                route.abort()

        def collect(response: Response) -> None:
            if response.status >= 400:
                visit.problems.append(f"{response.status} {response.url}")
            elif response.url.startswith(address):
                visit.loaded.append(response)

        def note(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                visit.problems.append(message.text)

        context.route("**/*", guard)
        visit.page.on("response", collect)
        visit.page.on("console", note)
        visit.page.on("pageerror", lambda error: visit.problems.append(str(error)))
        visit.page.goto(f"{address}{name}.html", wait_until="networkidle")
        return visit

    yield open_page
    for context in contexts:
        context.close()


def examine(visit: Visit) -> View:
    """Collect what the tests ask about one opened page."""
    from axe_playwright_python.base import AXE_SCRIPT

    page = visit.page
    # What is closed must be as readable, and as narrow, as what is open.
    page.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true })")
    page.evaluate("window.dispatchEvent(new Event('resize'))")
    seen = page.evaluate(
        """() => ({
          heading: document.querySelector("h1").textContent.trim(),
          theme: document.documentElement.dataset.theme,
          images: [...document.images].map(image => [
            image.src, image.complete && image.naturalWidth > 0, image.getAttribute("alt")]),
          figures: [...document.querySelectorAll("article svg")]
            .filter(figure => !figure.closest("button, summary, [aria-hidden=true]"))
            .map(figure => {
              const ids = (figure.getAttribute("aria-labelledby") || "").split(" ");
              const named = ids.map(id => document.getElementById(id)?.textContent || "").join("");
              return [figure.getAttribute("role"), figure.getAttribute("aria-label") || named];
            }),
          excess_width: document.documentElement.scrollWidth - window.innerWidth,
          too_wide: [...document.querySelectorAll("article *")]
            .filter(item => item.getBoundingClientRect().right > window.innerWidth + 1
              && !item.closest("pre, .text_html, .pst-scrollable-table-container, div.math"))
            .slice(0, 5).map(item => item.outerHTML.slice(0, 150)),
        })"""
    )
    problems, outside = list(visit.problems), list(visit.outside)
    page.evaluate(AXE_SCRIPT)
    axe = page.evaluate("axe.run({resultTypes: ['violations'], preload: false})")
    violations = [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in axe["violations"]
        for node in violation["nodes"]
    ]
    return View(
        problems=problems,
        outside=outside,
        # Asked for here: a handler that waits for a body may still wait when the page is idle.
        compressed_bytes=sum(len(gzip.compress(response.body())) for response in visit.loaded),
        axe_looked_at=len(axe["passes"]),
        violations=violations,
        **seen,
    )


@pytest.mark.parametrize("name", PAGES)
def test_page_opens_without_error_and_without_a_request_to_another_host(look: Look, name: str):
    view = look(name, "desktop", "light")
    assert view.problems == []
    assert view.outside == []
    assert view.heading


@pytest.mark.parametrize("name", PAGES)
def test_first_visit_to_a_page_loads_at_most_one_megabyte(look: Look, name: str):
    assert 10_000 < look(name, "desktop", "light").compressed_bytes <= 1_000_000


@pytest.mark.parametrize("name", PAGES)
def test_every_image_loads_and_every_figure_has_a_name(look: Look, name: str):
    view = look(name, "desktop", "light")
    assert view.images, "a page shows at least the logo"
    for source, loaded, alternative in view.images:
        assert loaded, f"{source} does not load"
        assert alternative, f"{source} has no alternative text"
    for role, label in view.figures:
        assert role == "img"
        assert len(label.strip()) >= 20, f"not a description: {label!r}"


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_violation(look: Look, name: str, width: str, mode: str):
    view = look(name, width, mode)
    assert view.theme == mode
    assert view.axe_looked_at >= 10, "axe has hardly looked at anything"
    assert not view.violations, "\n".join(view.violations)


@pytest.mark.parametrize("name", PAGES)
def test_page_does_not_scroll_sideways_on_a_phone(look: Look, name: str):
    view = look(name, "phone", "light")
    assert view.excess_width <= 0, view.too_wide
    assert view.too_wide == []


@pytest.mark.parametrize("name", [page for page in PAGES if page != "search"])
def test_page_reads_without_javascript(visit: Open, name: str):
    page = visit(name, javascript=False).page
    article = page.locator("article")
    assert len(article.inner_text()) > 500
    ink, paper = (
        page.locator(place).first.evaluate(f"item => getComputedStyle(item).{colour}")
        for place, colour in (("article p", "color"), ("body", "backgroundColor"))
    )
    assert paper == "rgb(255, 255, 255)"
    assert max(int(part) for part in re.findall(r"\d+", ink)[:3]) < 100


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_shows_the_outputs_of_a_run_and_a_verdict_for_each_of_its_claims(
    visit: Open, name: str
):
    from guidebook import claims

    page = visit(name).page
    text = page.locator("article").inner_text()
    assert page.locator(".cell_output").count() >= 3
    # A figure, or, where there is nothing to draw, a table.
    assert page.locator(".cell_output svg[role=img], .cell_output table").count() >= 1
    own = [claim for claim in claims.ledger().values() if name.endswith(claim.chapter)]
    assert own, "a chapter tests at least one claim"
    outputs = " ".join(page.locator(".cell_output").all_inner_texts())
    for claim in own:
        assert claim.statement in outputs, f"no verdict on {claim.id}"
    assert re.search(r"\b(held|refuted|not tested here)\b", text)


def test_landing_page_names_every_chapter_and_what_its_claims_came_to(visit: Open):
    page = visit("book/index").page
    links = page.locator("dl.chapter-list a").evaluate_all("items => items.map(i => i.href)")
    assert [link.rsplit("/", 1)[1] for link in links] == [
        f"{name.removeprefix('notebooks/')}.html" for name in CHAPTERS
    ]
    outcomes = page.locator(".chapter-verdicts").all_inner_texts()
    assert len(outcomes) == len(CHAPTERS)
    assert "The machine behind this site" in page.locator("article").inner_text()


def test_entry_page_leads_to_the_landing_page(visit: Open, address: str):
    page = visit("index").page
    page.wait_for_url(f"{address}book/index.html")


def test_reader_can_switch_between_light_and_dark_and_the_choice_stays(visit: Open):
    page = visit("book/index", mode="light").page

    def background() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = background()
    for _ in range(3):
        page.locator(".theme-switch-button").click()
        if page.evaluate("document.documentElement.dataset.mode") == "dark":
            break
    dark = background()
    assert dark != light
    page.reload(wait_until="networkidle")
    assert background() == dark


def test_page_follows_the_system_where_the_reader_has_not_chosen(visit: Open):
    page = visit("book/index", mode="dark").page
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_search_finds_a_term_offline_and_leads_to_it(visit: Open, address: str):
    opened = visit("search")
    opened.page.goto(f"{address}search.html?q=perplexity", wait_until="networkidle")
    results = opened.page.locator("#search-results li a")
    results.first.wait_for()
    links = results.evaluate_all("items => items.map(item => item.href)")
    assert any("glossary" in link for link in links)
    assert opened.outside == []
    results.first.click()
    opened.page.wait_for_load_state()
    assert "perplexity" in opened.page.locator("article").inner_text().lower()


def test_solution_is_hidden_until_the_keyboard_opens_it(visit: Open):
    for name in CHAPTERS:
        page = visit(name).page
        solutions = page.locator("article details.sd-dropdown")
        assert solutions.count() >= 1, f"{name} has no solution to open"
        first = solutions.first
        assert first.get_attribute("open") is None
        first.locator("summary").focus()
        page.keyboard.press("Enter")
        assert first.get_attribute("open") is not None


def test_formulas_are_mathml_with_their_source_as_text(visit: Open):
    counts = 0
    for name in CHAPTERS:
        page = visit(name).page
        assert page.locator("article >> text=/\\\\frac|\\\\text\\{|\\$\\$/").count() == 0
        formulas = page.locator("article math").evaluate_all(
            "items => items.map(item => [item.getAttribute('alttext'), item.clientWidth])"
        )
        counts += len(formulas)
        assert all(source for source, _ in formulas)
    assert counts, "no chapter shows a formula"


class Links(HTMLParser):
    """Collects the links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(unescape(values["href"]))


def test_every_internal_link_leads_to_a_page_and_an_anchor(site: Path):
    pages = {
        path.relative_to(site).as_posix(): Links(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
    }
    assert len(pages) > len(CHAPTERS)
    broken = []
    for name, content in pages.items():
        for link in content.links:
            parts = urlsplit(urljoin(f"https://here/{name}", link))
            if parts.netloc != "here" or parts.scheme != "https":
                continue
            target, anchor = unquote(parts.path.lstrip("/")), unquote(parts.fragment)
            if not (site / target).is_file():
                broken.append(f"{name} → {link}: no such page")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                broken.append(f"{name} → {link}: no such anchor")
    assert not broken, "\n".join(broken)


def test_every_term_that_a_chapter_links_stands_in_the_glossary(site: Path):
    glossary = Links((site / "book/glossary.html").read_text(encoding="utf-8"))
    terms = {anchor for anchor in glossary.anchors if anchor.startswith("term-")}
    assert len(terms) >= 35


def test_no_page_shows_what_a_library_says_about_itself(site: Path):
    talking = [
        path.name
        for path in site.glob("notebooks/*.html")
        if 'class="output stderr' in path.read_text(encoding="utf-8")
    ]
    assert not talking, "see guidebook.quiet"


def test_site_tells_nothing_about_who_built_it(site: Path):
    home = str(Path.home())
    host = socket.gethostname()
    # A short host name is a word that pages use; a root folder is in every path.
    secrets = [f"{home}/"] if len(home) > 1 else []
    secrets += [str(ROOT)] if len(ROOT.parts) > 2 else []
    secrets += [host] if len(host) >= 6 and host != "localhost" else []
    found = [
        f"{path.relative_to(site)} holds {secret}"
        for path in site.rglob("*")
        if path.suffix in {".html", ".js", ".ipynb", ".md", ".json", ".txt", ""} and path.is_file()
        for secret in secrets
        if secret in path.read_text(encoding="utf-8", errors="ignore")
    ]
    assert not found, "\n".join(found)
