"""Pages at their limits in a real browser: words that never end, keyboards, contrast, phones and paper."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import opened
from PIL import Image

from finetune.page.blocks import (
    Code,
    Column,
    Fact,
    Facts,
    Figure,
    Gallery,
    Picture,
    Section,
    Table,
    Text,
)
from finetune.page.drawing import draw
from finetune.page.render import render

if TYPE_CHECKING:
    from playwright.sync_api import Locator

PHONE = {"width": 390, "height": 844}
SCORES = (0.5, None, 0.25, 1.0, 0.125, 0.75, 0.0, 0.875, 0.625, 0.375)
LONG = "averyveryverylongnameofaclassthatnobodycanbreakintowords_" * 4


def image(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it."""
    names = [f"class {number}" for number in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)]
    columns = (Column("class"), Column("recall", 3, bar=True), *(Column(f"value {number}") for number in range(12)))
    rows = tuple((name, score, *range(12)) for name, score in zip(names, SCORES, strict=True))
    picture = Picture("ant.jpg", image((200, 0, 0)), image((0, 0, 200)), "An ant", {"label": LONG})
    figure = Figure("Loss", draw(lambda axes: axes.plot([3, 2, 1])), "It falls from 3 to 1", "Lower is better.")
    sections = [
        Section(
            "verdict", "Verdict", (Facts((Fact("accuracy", "0.98", "0.97 to 0.99"),)), Text(LONG, "warning")), LONG
        ),
        Section("figures", "Figures", (figure,)),
        Section("classes", "Classes", (Table("Scores of each class", columns, rows),)),
        Section("images", "Images", (Gallery("Worst", (picture, Picture("gone.jpg", None))),)),
        Section("config", "Configuration", (Code("seed: 0\nlr: 0.1", "All", folded=True), Code(LONG, "Command"))),
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render(LONG, sections, subtitle=LONG), encoding="utf-8")
    return path


def column(table: "Locator", index: int) -> list[str]:
    return table.locator(f"tbody tr:visible > :nth-child({index + 1})").all_inner_texts()


def test_keyboard_reaches_the_content_and_sorts_names_by_their_numbers(file: Path) -> None:
    with opened(file) as (page, seen):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid" and page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        table = page.get_by_role("table", name="Scores of each class")
        button = table.get_by_role("columnheader", name="class").get_by_role("button")
        for _ in range(40):  # no trap for the keyboard on the way
            page.keyboard.press("Tab")
            if button.evaluate("found => found === document.activeElement"):
                break
        page.keyboard.press("Enter")
        assert column(table, 0) == [f"class {number}" for number in range(1, 11)]
        assert table.get_by_role("columnheader", name="class").get_attribute("aria-sort") == "ascending"
    assert (seen.problems, seen.requests) == ([], [])


def test_code_is_folded_and_can_be_copied(file: Path) -> None:
    with opened(file) as (page, seen):
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(file: Path, scheme: str) -> None:
    with opened(file, color_scheme=scheme) as (page, _):
        colours = page.evaluate(
            "['--ink', '--soft', '--accent', '--good', '--warning', '--bad', '--paper', '--card'].map("
            "(name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"
        )
    *texts, paper, card = map(luminance, colours)
    # Source: WCAG 2.2, 1.4.3 (AA): 4.5 to 1
    assert min((max(a, b) + 0.05) / (min(a, b) + 0.05) for a in texts for b in (paper, card)) >= 4.5


def luminance(colour: str) -> float:
    """Return the relative luminance of #rgb or #rrggbb. Source: WCAG 2.2, definition of relative luminance."""
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_phone_never_scrolls_sideways_and_its_tables_do(file: Path) -> None:
    with opened(file, viewport=PHONE) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        box = page.get_by_role("region", name="Scores of each class")
        assert box.evaluate("found => found.scrollWidth > found.clientWidth && found.tabIndex === 0")


def test_figure_is_not_blown_up_on_a_wide_screen(file: Path) -> None:
    with opened(file) as (page, _):
        box = page.locator("figure.drawing svg").bounding_box()
    assert box is not None and box["width"] <= 1.3 * 420 + 1


def test_paper_has_no_controls_and_whole_tables_on_white(file: Path) -> None:
    with opened(file, color_scheme="dark") as (page, _):
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator("button:visible, input:visible, nav:visible").count() == 0
        box = page.get_by_role("region", name="Scores of each class")
        assert box.evaluate("found => found.scrollHeight <= found.clientHeight + 1")
        assert page.pdf(format="A4").startswith(b"%PDF")
