"""Pages in a real browser: they stand alone, sort, search, switch, and fit phones, paper and dark rooms."""

import io
import re
from pathlib import Path

import pytest
from browser import opened
from PIL import Image

from finetune.page.blocks import Code, Column, Fact, Facts, Figure, Gallery, Picture, Section, Table, Text
from finetune.page.drawing import COLOURS, INK, draw
from finetune.page.render import render

HOSTILE = "<script>window.hurt = 1</script>&\"'"


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def page_of(rows: int = 12) -> str:
    """Return a page with every kind of block, and hostile texts."""
    figure = draw(lambda axes: axes.plot([0, 1], [1, 0], color=COLOURS[0], label="line"), name="first")
    other = draw(lambda axes: axes.axvline(0.5, color=INK), name="second")
    cells = tuple((f"class {row:02d}", None if row == 3 else (row * 7 % 12) / 12, 10 * row) for row in range(rows))
    columns = (Column("class"), Column("recall", 3, bar=True, hint=HOSTILE), Column("images"))
    blocks = (
        Text(HOSTILE, "warning"), Facts((Fact("accuracy", "0.93", "0.90 to 0.96", "good"),)),
        Figure("Line", figure, "a line"), Figure("Other", other, HOSTILE, "caption"),
        Table("Classes", columns, cells), Code("finetune report", "Repeat"), Code("a: 1", "Configuration", folded=True),
        Gallery("Examples", (Picture(HOSTILE, picture("red"), picture("blue"), facts={"label": "ant"}),
                             Picture("gone", None))),
    )  # fmt: skip
    sections = [Section("one", "One", blocks, "lead"), Section("two", "Two", (Text("x"),)), Section("three", "3", ()),
                Section("four", "Four", (Text("y"),))]  # fmt: skip
    return render(f"Title {HOSTILE}", sections, subtitle="subtitle")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "page.html").write_text(page_of(), encoding="utf-8")
    return tmp_path / "page.html"


def column(page, number: int) -> list[str]:  # type: ignore[no-untyped-def]
    return page.eval_on_selector_all("tbody tr", f"rows => rows.map(row => row.cells[{number}].textContent)")


def test_it_stands_alone_and_texts_stay_texts(file: Path) -> None:
    assert not re.search(r"(src|href)=.http|@import|url\(http", file.read_text())
    with opened(file) as (page, seen):
        assert page.title() == f"Title {HOSTILE}"
        assert page.evaluate("window.hurt") is None
        assert page.locator("h2").all_text_contents() == ["One", "Two", "Four"]
        assert page.locator("svg").count() == 2
        ids = page.eval_on_selector_all("[id]", "nodes => nodes.map(node => node.id)")
        assert len(ids) == len(set(ids))
    assert (seen.problems, seen.requests) == ([], [])


def test_tables_sort_by_click_and_by_key_with_nothing_last_and_are_searched(file: Path) -> None:
    with opened(file) as (page, _):
        heads = page.locator("thead th")
        heads.nth(1).locator("button").click()
        found = column(page, 1)
        numbers = [float(cell) for cell in found[:-1]]
        assert numbers == sorted(numbers, reverse=True)
        assert found[-1] == "–"
        assert heads.nth(1).get_attribute("aria-sort") == "descending"
        heads.nth(1).locator("button").focus()
        page.keyboard.press("Enter")
        assert [float(cell) for cell in column(page, 1)[:-1]] == sorted(numbers)
        heads.nth(0).locator("button").click()
        assert column(page, 0) == [f"class {row:02d}" for row in range(12)]
        assert heads.nth(1).get_attribute("aria-sort") is None
        page.get_by_role("searchbox").fill("class 09")
        shown = page.locator("tbody tr:visible")
        assert shown.count() == 1
        assert page.locator(".tools [role=status]").text_content() == "1 of 12"


def test_galleries_switch_to_what_the_network_looks_at_and_back(file: Path) -> None:
    with opened(file) as (page, _):
        image = page.locator(".gallery img").first
        before = image.get_attribute("src")
        switch = page.get_by_role("button", name="Show what the network looks at")
        switch.click()
        assert image.get_attribute("src") != before
        page.get_by_role("button", name="Show the images alone").click()
        assert image.get_attribute("src") == before
        assert page.get_by_text("The image is not there any more.").is_visible()


def test_it_is_dark_where_that_is_wanted_and_by_a_switch(file: Path) -> None:
    def paper(page) -> str:  # type: ignore[no-untyped-def]
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    with opened(file, color_scheme="dark") as (page, _):
        dark = paper(page)
        page.get_by_role("button", name="Switch between light and dark").click()
        light = paper(page)
    with opened(file, color_scheme="light") as (page, _):
        assert paper(page) == light == "rgb(255, 255, 255)"
        page.get_by_role("button", name="Switch between light and dark").click()
        assert paper(page) == dark != light


@pytest.mark.parametrize("width", [360, 1100])
def test_nothing_is_wider_than_the_screen(file: Path, width: int) -> None:
    with opened(file, viewport={"width": width, "height": 800}) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_there_are_no_controls(file: Path) -> None:
    with opened(file) as (page, _):
        page.emulate_media(media="print")
        assert page.locator("button:visible").count() == 0
        assert page.locator("nav:visible").count() == 0
        assert page.locator("table").is_visible()


def test_without_scripts_everything_can_be_read(file: Path) -> None:
    with opened(file, java_script_enabled=False) as (page, _):
        assert page.locator("tbody tr:visible").count() == 12
        assert page.locator("button:visible").count() == 0


def test_who_cannot_see_is_told(file: Path) -> None:
    with opened(file) as (page, _):
        assert page.locator("[role=img][aria-label='a line']").count() == 1
        assert page.locator("table caption").text_content() == "Classes"
        assert page.locator("th[scope=row]").count() == 12
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
