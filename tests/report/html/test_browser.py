"""Pages in a real browser: they stand alone, sort, search, switch, fit phones, paper and dark rooms."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import launched, opened
from PIL import Image

from finetune.report.html.blocks import Code, Column, Fact, FactList, Figure, Gallery, ImageBlock, Section, Table, Text
from finetune.report.html.render import render
from finetune.report.html.svg import COLOURS, INK, draw_svg

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

HOSTILE = "<script>window.hurt = 1</script>&\"'"
LONG = "averyveryverylongnameofaclassthatnobodycanbreakintowords_" * 4
SCORES = (0.5, None, 0.25, 1.0, 0.125, 0.75, 0.0, 0.875, 0.625, 0.375)
PHONE = {"width": 360, "height": 800}
SWITCH = "Switch between light and dark"


def image(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def page_of() -> str:
    """Return a page with every kind of block, hostile texts and long ones."""
    columns = (Column("class"), Column("recall", 3, bar=True, hint=HOSTILE),
               *(Column(f"value {number}") for number in range(12)))  # fmt: skip
    rows = tuple((f"class {10 - row}", score, *range(12)) for row, score in enumerate(SCORES))
    line = draw_svg(lambda axes: axes.plot([3, 2, 1], color=COLOURS[0], label="line"), name="first")
    other = draw_svg(lambda axes: axes.axvline(0.5, color=INK), name="second")
    ant = ImageBlock(HOSTILE, image("red"), image("blue"), "An ant", {"label": LONG})
    sections = [
        Section(
            "verdict", "Verdict",
            (FactList((Fact("accuracy", "0.98", "0.97 to 0.99", "good"),)), Text(LONG, "warning"), Text(HOSTILE)), LONG,
        ),
        Section("figures", "Figures", (Figure("Loss", line, "a line", "Lower is better."),
                                       Figure("Other", other, HOSTILE, "caption"))),
        Section("classes", "Classes", (Table("Scores of each class", columns, rows),)),
        Section("images", "Images", (Gallery("Worst", (ant, ImageBlock("gone.jpg", None))),)),
        Section("config", "Configuration", (Code("seed: 0\nlr: 0.1", "All", folded=True), Code(LONG, "Command"))),
        Section("nothing", "Nothing", ()),
    ]  # fmt: skip
    return render(f"Title {HOSTILE}", sections, subtitle=LONG)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page_of(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with launched() as found:
        yield found


def column(page: "Page", index: int) -> list[str]:
    return page.locator(f"tbody tr:visible > :nth-child({index + 1})").all_inner_texts()


def paper(page: "Page") -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_it_stands_alone_and_texts_stay_texts(file: Path, browser: "Browser") -> None:
    assert not re.search(r"(src|href)=.http|@import|url\(http", file.read_text())
    with opened(file, browser) as (page, seen):
        assert page.title() == f"Title {HOSTILE}"
        assert page.evaluate("window.hurt") is None
        assert page.locator("h2").all_text_contents() == ["Verdict", "Figures", "Classes", "Images", "Configuration"]
        assert page.locator("svg").count() == 2
        ids = page.eval_on_selector_all("[id]", "nodes => nodes.map(node => node.id)")
        assert len(ids) == len(set(ids))
    assert (seen.problems, seen.requests) == ([], [])


def test_tables_sort_by_click_and_by_key_with_nothing_last_and_are_searched(file: Path, browser: "Browser") -> None:
    with opened(file, browser) as (page, _):
        heads = page.locator("thead th")
        heads.nth(1).locator("button").click()
        found = column(page, 1)
        numbers = [float(cell) for cell in found[:-1]]
        assert numbers == sorted((score for score in SCORES if score is not None), reverse=True)
        assert found[-1] == "–"
        assert heads.nth(1).get_attribute("aria-sort") == "descending"
        heads.nth(1).locator("button").focus()
        page.keyboard.press("Enter")
        assert [float(cell) for cell in column(page, 1)[:-1]] == sorted(numbers)
        assert column(page, 1)[-1] == "–"
        page.get_by_role("searchbox").fill("CLASS 0.875")
        assert page.locator("tbody tr:visible").count() == 1
        assert page.locator(".tools [role=status]").text_content() == "1 of 10"


def test_keyboard_reaches_the_content_and_sorts_names_by_their_numbers(file: Path, browser: "Browser") -> None:
    with opened(file, browser) as (page, seen):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid" and page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        table = page.get_by_role("table", name="Scores of each class")
        head = table.get_by_role("columnheader", name="class")
        button = head.get_by_role("button")
        for _ in range(40):  # no trap for the keyboard on the way
            page.keyboard.press("Tab")
            if button.evaluate("found => found === document.activeElement"):
                break
        page.keyboard.press("Enter")
        assert column(page, 0) == [f"class {number}" for number in range(1, 11)]
        assert head.get_attribute("aria-sort") == "ascending"
        table.get_by_role("columnheader", name="recall").get_by_role("button").click()
        assert head.get_attribute("aria-sort") is None
    assert (seen.problems, seen.requests) == ([], [])


def test_galleries_switch_to_what_the_network_looks_at_and_back(file: Path, browser: "Browser") -> None:
    with opened(file, browser) as (page, _):
        picture = page.locator(".gallery img").first
        before = picture.get_attribute("src")
        page.get_by_role("button", name="Show what the network looks at").click()
        assert picture.get_attribute("src") != before
        page.get_by_role("button", name="Show the images alone").click()
        assert picture.get_attribute("src") == before
        assert page.get_by_text("The image is not there any more.").is_visible()


def test_code_is_folded_and_can_be_copied(file: Path, browser: "Browser") -> None:
    with opened(file, browser) as (page, seen):
        code = page.get_by_text("seed: 0")
        assert not code.is_visible()
        page.locator("summary").click()
        assert code.is_visible()
        block = page.locator("details")
        page.evaluate(
            "Object.defineProperty(navigator, 'clipboard',"
            " { value: { writeText: async (text) => { window.copied = text; } } });"
        )
        block.get_by_role("button", name="Copy").click()
        page.wait_for_function("window.copied !== undefined")
        assert page.evaluate("window.copied") == "seed: 0\nlr: 0.1"
    assert (seen.problems, seen.requests) == ([], [])


def test_it_is_dark_where_that_is_wanted_and_by_a_switch_and_its_texts_stand_out(
    file: Path, browser: "Browser"
) -> None:
    papers = {}
    for scheme, other in (("dark", "light"), ("light", "dark")):
        with opened(file, browser, color_scheme=scheme) as (page, _):
            papers[scheme, "given"] = paper(page)
            colours = page.evaluate(
                "['--ink', '--soft', '--accent', '--good', '--warning', '--bad', '--paper', '--card'].map("
                "(name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
            )
            page.get_by_role("button", name=SWITCH).click()
            papers[other, "switched"] = paper(page)
        *texts, back, card = map(luminance, colours)
        # Source: WCAG 2.2, 1.4.3 (AA): 4.5 to 1
        assert min((max(a, b) + 0.05) / (min(a, b) + 0.05) for a in texts for b in (back, card)) >= 4.5
    assert papers["light", "given"] == papers["light", "switched"] == "rgb(255, 255, 255)"
    assert papers["dark", "given"] == papers["dark", "switched"] != papers["light", "given"]


def luminance(colour: str) -> float:
    """Return the relative luminance of #rgb or #rrggbb. Source: WCAG 2.2, definition of relative luminance."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def table_box(page: "Page") -> "Locator":
    return page.get_by_role("region", name="Scores of each class")


def test_phone_never_scrolls_sideways_and_its_tables_do(file: Path, browser: "Browser") -> None:
    with opened(file, browser, viewport=PHONE) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert table_box(page).evaluate("found => found.scrollWidth > found.clientWidth && found.tabIndex === 0")


def test_on_a_wide_screen_nothing_is_wider_and_figures_are_not_blown_up(file: Path, browser: "Browser") -> None:
    with opened(file, browser) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") <= 1100
        box = page.locator("figure.drawing svg").first.bounding_box()
    assert box is not None and box["width"] <= 1.3 * 420 + 1


def test_paper_has_no_controls_and_whole_tables_on_white(file: Path, browser: "Browser") -> None:
    with opened(file, browser, color_scheme="dark") as (page, _):
        page.emulate_media(media="print")
        assert paper(page) == "rgb(255, 255, 255)"
        assert page.locator("button:visible, input:visible, nav:visible").count() == 0
        assert page.locator("table").is_visible()
        assert table_box(page).evaluate("found => found.scrollHeight <= found.clientHeight + 1")
        assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_scripts_everything_can_be_read(file: Path, browser: "Browser") -> None:
    with opened(file, browser, java_script_enabled=False) as (page, _):
        assert page.locator("tbody tr:visible").count() == len(SCORES)
        assert page.locator("button:visible").count() == 0


def test_who_cannot_see_is_told(file: Path, browser: "Browser") -> None:
    with opened(file, browser) as (page, _):
        assert page.locator("[role=img][aria-label='a line']").count() == 1
        assert page.locator("table caption").text_content() == "Scores of each class"
        assert page.locator("th[scope=row]").count() == len(SCORES)
