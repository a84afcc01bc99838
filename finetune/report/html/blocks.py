"""Blocks of a page: sections of texts, figures, tables and galleries, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Cell = str | int | float | None
Tone = Literal["plain", "good", "warning", "bad"]


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: Plain text, without markup.
        tone: warning and bad stand out, and are said in words too.
    """

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Code:
    """Commands or a configuration, which can be copied.

    Attributes:
        text: The lines.
        title: What it is; the block is folded away behind it if `folded`.
        folded: Whether it is shown only when asked for.
    """

    text: str
    title: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        title: What is shown.
        svg: Of `drawing.draw`, or another SVG element.
        description: The same in words, for who cannot see it.
        caption: How it is read; below it.
    """

    title: str
    svg: str
    description: str
    caption: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        digits: Of numbers after the point; None writes them as they are.
        bar: Whether each number between 0 and 1 is shown as a bar too.
        hint: What the heading means.
    """

    name: str
    digits: int | None = None
    bar: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by each column, and searched.

    Attributes:
        title: What its rows are.
        columns: C of them.
        rows: Each of C cells; None is shown as a dash and sorted last.
        caption: How it is read.
        key: Whether the first column names the rows.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    key: bool = True


@dataclass(frozen=True)
class ImageBlock:
    """An image of a gallery.

    Attributes:
        caption: What is said of it.
        image: An encoded thumbnail; None where the image is gone.
        overlay: A second one of the same size with a map drawn over it; None without one.
        description: Of what is seen, for who cannot see it.
        facts: Further values by name.
    """

    caption: str
    image: bytes | None
    overlay: bytes | None = None
    description: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gallery:
    """Images side by side.

    Attributes:
        title: What they have in common.
        pictures: In their order.
        caption: How it is read, and what is missing.
    """

    title: str
    pictures: tuple[ImageBlock, ...]
    caption: str = ""


@dataclass(frozen=True)
class Fact:
    """A number that is shown large.

    Attributes:
        name: What it is.
        value: As it is shown.
        note: Such as its interval.
        tone: How it stands.
    """

    name: str
    value: str
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class FactList:
    """Numbers shown large, side by side."""

    facts: tuple[Fact, ...]


Block = Text | Code | Figure | Table | Gallery | FactList


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading.

    Attributes:
        anchor: Its address in the page: lower-case letters and hyphens.
        title: Its heading.
        blocks: What it holds.
        lead: What its reader should take away, in a sentence or two.
    """

    anchor: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""
