"""The markup of a page: whatever it is given is escaped, addresses stay inside, figures share nothing."""

import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from finetune.report.html.blocks import Code, Column, Fact, FactList, Figure, Gallery, ImageBlock, Section, Table, Text
from finetune.report.html.render import RenderedBlock, cell_of, render
from finetune.report.html.svg import COLOURS, INK, draw_svg

EVIL = "<img src=x onerror=alert(1)>\"'&"


def thumbnail(form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(buffer, form)
    return buffer.getvalue()


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, page: str) -> None:
        """Read a page."""
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def all_blocks(word: str) -> Section:
    """Put a text into each place of each block."""
    picture = ImageBlock(word, thumbnail(), thumbnail("PNG"), word, {word: word})
    columns = (Column(word, hint=word), Column(word, digits=2, bar=True))
    return Section(
        "all", word,
        (
            Text(word), Text(word, "warning"), Code(word, word), Code(word, word, folded=True),
            Figure(word, draw_svg(lambda axes: axes.set_title(word)), word, word),
            Table(word, columns, ((word, 0.5), (word, None)), word),
            Gallery(word, (picture, ImageBlock(word, None, facts={word: word})), word),
            FactList((Fact(word, word, word, "bad"),)),
        ),
        word,
    )  # fmt: skip


def test_what_is_told_cannot_become_markup() -> None:
    plain, evil = (render(word, [all_blocks(word)], subtitle=word) for word in ("word", EVIL))
    assert [tag for tag, _ in Elements(evil).found] == [tag for tag, _ in Elements(plain).found]
    assert not [name for _, attributes in Elements(evil).found for name in attributes if name.startswith("on")]
    assert not re.search(r"<img src=x", evil)


def test_page_has_no_address_outside_itself() -> None:
    page = render("Title", [all_blocks("word")])
    addresses = [
        value or ""
        for _, attributes in Elements(page).found
        for name, value in attributes.items()
        if name in ("src", "href", "data-overlay", "action", "poster", "srcset")
    ]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", page)
    assert "default-src 'none'" in page


def test_figures_of_a_page_share_no_id() -> None:
    def plot(axes: object) -> None:
        axes.plot([0, 1], color=COLOURS[0], marker="o")  # type: ignore[attr-defined]

    figures = tuple(Figure(name, draw_svg(plot, name=name), name) for name in ("loss", "accuracy"))
    page = render("Title", [Section("one", "One", figures), Section("two", "Two", (Text("x"),))])
    ids = [attributes["id"] for _, attributes in Elements(page).found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for target in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page):
        assert "".join(target) in ids


def test_figure_follows_the_colours_of_the_page_and_keeps_its_size() -> None:
    svg = draw_svg(lambda axes: axes.set_xlabel("epoch", color=INK), width=420, height=300)
    assert "var(--ink" in svg and INK not in svg
    assert "epoch" in re.findall(r">([^<>]+)</text>", svg)
    assert 'viewBox="0 0 420 300"' in svg
    assert "max-width: 546px" in svg  # 1.3 times as large where there is room, not more


@pytest.mark.parametrize(
    ("cell", "column", "shown"),
    [
        (None, Column("x"), RenderedBlock("–")),
        (float("nan"), Column("x", 2), RenderedBlock("–")),
        ("", Column("x"), RenderedBlock("")),
        (1234567, Column("x"), RenderedBlock("1,234,567", 1234567.0)),
        (0.12345, Column("x", 3), RenderedBlock("0.123", 0.12345)),
        (1.5, Column("x", bar=True), RenderedBlock("1.5", 1.5, 100.0)),
        (-0.5, Column("x", 1, bar=True), RenderedBlock("-0.5", -0.5, 0.0)),
    ],
)
def test_cells_are_written_as_their_column_says(cell: object, column: Column, shown: RenderedBlock) -> None:
    assert cell_of(cell, column) == shown  # type: ignore[arg-type]
