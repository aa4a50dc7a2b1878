"""The built book in a browser: what a reader meets, page by page, without a network.

Each page is visited once, wide and then as narrow as a phone; the tests look at what was seen there.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
NOTEBOOKS = [page for page in PAGES if page.startswith("notebooks/")]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
ADDRESS = CONFIG["repository"]["url"]
BRANCH = CONFIG["repository"]["branch"]
BINDER = f"{ADDRESS.replace('github.com', 'mybinder.org/v2/gh')}/{BRANCH}?urlpath=lab/tree/"

DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}

LONGEST = 12_000
"""Height of a page on a desk, in px; the appendix alone is longer."""
APPENDIX = "book/simulator"

WIDGETS = """() => document.querySelectorAll(".widget-subarea").length
  === document.querySelectorAll("script[type='application/vnd.jupyter.widget-view+json']").length"""

# Of the theme's own scripts: a constant that it declares twice, and MathJax 2's name where there are widgets.
HARMLESS = [
    r"Identifier 'THEBE_JS_URL' has already been declared",
    r"Cannot read properties of undefined \(reading 'Queue'\)",
]

LOOK = """() => {
  const article = document.querySelector("article") || document.body;
  return {
    images: [...document.images].map(i => ({
      src: i.src, alt: i.alt, loaded: i.complete && i.naturalWidth > 0, figure: article.contains(i)})),
    links: [...document.querySelectorAll("a[href]")].map(a => a.href),
    formulas: document.querySelectorAll("span.math, div.math").length,
    drawn: document.querySelectorAll("mjx-container").length,
    broken: [...document.querySelectorAll("[data-mjx-error], mjx-merror")].map(e => e.textContent),
    titles: document.querySelectorAll("article h1").length,
    markup: article.innerText.match(/^(```|:[a-z-]+: ).*/gm) || [],
    language: document.documentElement.lang,
    height: document.documentElement.scrollHeight,
    nameless: [...document.querySelectorAll("button, a[href], input, select, summary")]
      .filter(e => e.checkVisibility() && !e.innerText && !e.ariaLabel && !e.title && !e.placeholder)
      .filter(e => !e.labels?.length && !e.querySelector("img[alt]:not([alt=''])"))
      .map(e => e.outerHTML.slice(0, 100)),
  };
}"""

# Contrast of text after WCAG 2.1, success criterion 1.4.3.
FAINT = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const [r, g, b, opacity = 1] = numbers(getComputedStyle(e).backgroundColor);
      if (opacity > 0.5) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const faint = new Set();
  for (const e of document.querySelectorAll("article *, nav a")) {
    const text = [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
    if (!text || !e.offsetParent) continue;
    const style = getComputedStyle(e), back = behind(e);
    const [low, high] = [luminance(numbers(style.color)), luminance(back)].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) faint.add(`${e.tagName}.${e.className}: ${style.color} on ${back}`);
  }
  return [...faint];
}"""

TOO_WIDE = """() => {
  const page = document.documentElement;
  if (page.scrollWidth <= page.clientWidth) return [];
  return [...document.querySelectorAll("article *")]
    .filter(e => e.getBoundingClientRect().right > page.clientWidth + 1)
    .map(e => e.tagName + "." + e.className).slice(0, 5).concat(["page: " + page.scrollWidth + " px"]);
}"""


@dataclass
class Visit:
    """What happened on one page."""

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    seen: dict = field(default_factory=dict)
    too_wide: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def book(study) -> Path:
    """The folder of the built book."""
    return study / "html"


def open_context(session, theme: str = "light"):
    """A fresh browser window as wide as a desk's, patient with a machine that is busy."""
    context = session.new_context(viewport=DESKTOP, color_scheme=theme)
    context.set_default_timeout(120_000)
    return context


@pytest.fixture
def web(session):
    """A fresh page."""
    context = open_context(session)
    yield context.new_page()
    context.close()


def settle(page: Page) -> None:
    """Wait until formulas and widgets are drawn."""
    page.evaluate("() => window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => 0) : 0")
    page.wait_for_function(WIDGETS)


@pytest.fixture(scope="session")
def visits(session, book) -> dict[str, Visit]:
    """Every page of the book, visited once."""
    context = open_context(session)
    page, visits = context.new_page(), {}
    now = Visit()
    page.on("pageerror", lambda error: now.errors.append(str(error)))
    page.on("requestfailed", lambda request: now.failed.append(request.url))
    page.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else now.outside.append(r.url),
    )
    for name in PAGES:
        now = visits[name] = Visit()
        page.set_viewport_size(DESKTOP)
        page.goto((book / f"{name}.html").as_uri())
        settle(page)
        now.seen = page.evaluate(LOOK)
        page.set_viewport_size(PHONE)
        now.too_wide = page.evaluate(TOO_WIDE)
    context.close()
    return visits


@pytest.mark.parametrize("name", PAGES)
class TestEveryPage:
    def test_scripts_run_without_errors(self, visits, name):
        known = re.compile("|".join(HARMLESS))
        assert [error for error in visits[name].errors if not known.search(error)] == []

    def test_nothing_is_fetched_from_outside(self, visits, name):
        assert visits[name].outside == []
        assert visits[name].failed == []

    def test_images_are_there_and_figures_are_described(self, visits, name):
        images = visits[name].seen["images"]
        assert [image["src"] for image in images if not image["loaded"]] == []
        figures = [image for image in images if image["figure"]]
        mute = [i["src"] for i in figures if len(i["alt"]) < 20 or i["alt"].endswith((".png", ".svg"))]
        assert mute == []

    def test_formulas_are_drawn(self, visits, name):
        seen = visits[name].seen
        assert seen["broken"] == []
        assert seen["drawn"] == seen["formulas"]

    def test_links_inside_the_book_resolve(self, visits, name):
        dead = []
        for link in sorted(set(visits[name].seen["links"])):
            parts = urlsplit(link)
            if parts.scheme != "file":
                continue
            target = Path(unquote(parts.path))
            wanted = unquote(parts.fragment)
            if not target.is_file() or (wanted and f'id="{wanted}"' not in target.read_text()):
                dead.append(link)
        assert dead == []

    def test_a_phone_shows_it_without_scrolling_sideways(self, visits, name):
        assert visits[name].too_wide == []

    def test_its_language_is_said_and_every_control_has_a_name(self, visits, name):
        assert visits[name].seen["language"] == "en"
        assert visits[name].seen["nameless"] == []

    def test_none_but_the_appendix_is_long(self, visits, name):
        assert name == APPENDIX or visits[name].seen["height"] <= LONGEST

    def test_it_has_one_title(self, visits, name):
        assert visits[name].seen["titles"] == 1

    def test_no_markup_is_left_in_its_text(self, visits, name):
        assert visits[name].seen["markup"] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_can_be_launched_and_downloaded(visits, book, name):
    links = visits[name].seen["links"]
    assert [link for link in links if "mybinder.org/v2" in link] == [f"{BINDER}{name}.ipynb"] * bool(ADDRESS)
    (download,) = {
        unquote(urlsplit(link).path) for link in links if link.endswith(".ipynb") and "_sources" in link
    }
    assert json.loads(Path(download).read_text())["nbformat"] == 4


def test_the_book_opens_on_its_front_page(web, book):
    web.goto((book / "index.html").as_uri())
    web.wait_for_url("**/book/index.html")
    headline = web.locator(".headline > div")
    assert headline.count() == 5
    for number in headline.locator("strong").all_inner_texts():
        assert re.fullmatch(r"\d\.\d\d", number)


def test_formulas_of_every_kind_are_there(visits):
    assert sum(visit.seen["formulas"] for visit in visits.values()) > 50


@pytest.mark.parametrize(("word", "page"), [("conformal", "methods"), ("capacity", "adding_a_variant")])
def test_search_finds_a_page_by_a_word_in_it(web, book, word, page):
    web.goto((book / "book/index.html").as_uri())
    web.keyboard.press("Control+k")
    field = web.locator("dialog input[type=search]:visible, .search-button__wrapper input:visible").first
    field.fill(word)
    web.keyboard.press("Enter")
    web.wait_for_url(f"**/search.html?q={word}*")
    expect(web.locator(f"ul.search li a[href*='book/{page}.html']").first).to_be_visible(timeout=20_000)


def test_light_turns_dark_and_stays_so(web, book):
    def brightness() -> float:
        colour = web.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 765

    web.goto((book / "book/background.html").as_uri())
    assert brightness() > 0.9
    button = web.locator("button.theme-switch-button:visible").first
    for _ in range(3):
        if web.locator("html").get_attribute("data-theme") == "dark":
            break
        button.click()
    assert brightness() < 0.2
    assert "invert" in web.locator("img.schematic").evaluate("image => getComputedStyle(image).filter")
    web.goto((book / "book/data.html").as_uri())
    assert web.locator("html").get_attribute("data-theme") == "dark"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["book/index", "book/methods", "notebooks/10_thresholding"])
def test_text_stands_out_from_what_is_behind_it(session, book, name, theme):
    context = open_context(session, theme)
    page = context.new_page()
    page.goto((book / f"{name}.html").as_uri())
    assert page.locator("html").get_attribute("data-theme") == theme
    assert page.evaluate(FAINT) == []
    context.close()


@pytest.mark.parametrize("name", ["book/index", "notebooks/10_thresholding"])
def test_a_figure_on_a_phone_stays_legible_and_scrolls_in_its_own_box(web, book, name):
    web.set_viewport_size(PHONE)
    web.goto((book / f"{name}.html").as_uri())
    figure = web.locator("figure.plot, .cell_output figure").first
    assert figure.locator("img").first.bounding_box()["width"] >= 500
    assert figure.evaluate("box => box.scrollWidth > box.clientWidth")
    figure.evaluate("box => box.scrollTo(10_000, 0)")
    caption = figure.locator("figcaption").bounding_box()
    assert caption["x"] >= 0
    assert caption["x"] + caption["width"] <= PHONE["width"]


def test_cutouts_and_captions_keep_their_shape_on_a_phone(web, book):
    web.set_viewport_size(PHONE)
    web.goto((book / "notebooks/14_candidates.html").as_uri())
    cutout = web.locator(".lensq-sheet img").first.bounding_box()
    assert cutout["width"] == pytest.approx(cutout["height"], abs=1)
    web.goto((book / "book/results.html").as_uri())
    caption, head = (web.locator(f"table {part}").first.bounding_box() for part in ("caption", "thead"))
    assert caption["width"] > 0.9 * min(head["width"], PHONE["width"] - 64)
    assert caption["y"] + caption["height"] <= head["y"] + 1


def test_the_sidebar_numbers_the_notebooks(web, book):
    web.goto((book / "book/index.html").as_uri())
    names = web.locator("nav.bd-links a[href*='notebooks/']").all_inner_texts()
    assert [name[:2] for name in names] == [page.removeprefix("notebooks/")[:2] for page in NOTEBOOKS]


def test_the_address_of_the_repository_reaches_every_link(visits):
    links = {link for visit in visits.values() for link in visit.seen["links"]}
    buttons = {link for link in links if "/issues/new" in link or "/edit/" in link}
    assert {link.startswith(f"{ADDRESS}/") for link in buttons} == ({True} if ADDRESS else set())
    assert (ADDRESS in links) == bool(ADDRESS)


def test_a_phone_opens_the_contents(web, book):
    web.set_viewport_size(PHONE)
    web.goto((book / "book/index.html").as_uri())
    link = web.locator("nav.bd-links a", has_text="Methods").first
    expect(link).not_to_be_in_viewport()
    web.locator("button.primary-toggle:visible").first.click()
    expect(link).to_be_in_viewport()
    link.click()
    web.wait_for_url("**/book/methods.html")
