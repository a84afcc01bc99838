"""A page as one HTML file: everything is inside it, every text is escaped, and it asks nothing of any network."""

import base64
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.report.html.blocks import (
    Block,
    Cell,
    Code,
    Column,
    FactList,
    Figure,
    Gallery,
    ImageBlock,
    Section,
    Table,
    Text,
)
from finetune.runtime.control_characters import escape_controls

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
_DASH = "–"
SHORT, LONG = 16, 40  # characters of a cell


class RenderedBlock(NamedTuple):
    """A cell as it is written.

    Attributes:
        text: What is read.
        number: What it is sorted by; None for words.
        bar: Its bar's length in percent; None without one.
    """

    text: str
    number: float | None = None
    bar: float | None = None

    @property
    def room(self) -> str:
        """Which words stay on one line, and which need room for several."""
        return "short" if len(self.text) <= SHORT else "long" if len(self.text) > LONG else "medium"


def render(title: str, sections: Sequence[Section], *, subtitle: str = "", nav: bool = True) -> str:
    """Return a whole page.

    Args:
        title: Its heading.
        sections: In their order; a section without blocks and lead is left out.
        subtitle: A line below the heading.
        nav: Whether the sections are listed at the top.
    """
    from markupsafe import Markup

    told = [section for section in sections if section.blocks or section.lead]
    style, script = (Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    return templates().get_template("page.html").render(
        title=title, subtitle=subtitle, sections=told, nav=nav, style=style, script=script, show=_show
    )  # fmt: skip


@cache
def templates() -> "Environment":
    """Return the templates, which escape whatever they are given."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: escape_controls(value) if type(value) is str else value,
    )  # fmt: skip


def _show(block: Block) -> Any:
    """Return a block as markup."""
    from markupsafe import Markup

    macros: Any = templates().get_template("blocks.html").module
    match block:
        case Text():
            return macros.text(block)
        case Code():
            return macros.code(block)
        case Figure():
            return macros.figure(block, Markup(block.svg))
        case Table():
            rows = [
                [cell_of(cell, column) for cell, column in zip(row, block.columns, strict=True)] for row in block.rows
            ]
            numeric = [any(row[place].number is not None for row in rows) for place in range(len(block.columns))]
            return macros.table(block, rows, numeric)
        case Gallery():
            return macros.gallery(block, [addressed(picture) for picture in block.pictures])
        case FactList():
            return macros.facts(block)


def cell_of(cell: Cell, column: Column) -> RenderedBlock:
    """Return a cell as it is written: numbers with the digits of their column, nothing as a dash."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return RenderedBlock(_DASH)
    if isinstance(cell, str):
        return RenderedBlock(cell)
    if column.digits is not None:
        text = f"{cell:,.{column.digits}f}"
    else:
        text = f"{cell:,}" if isinstance(cell, int) else f"{cell:.6g}"
    return RenderedBlock(text, float(cell), round(100 * min(1.0, max(0.0, float(cell))), 1) if column.bar else None)


def addressed(picture: ImageBlock) -> dict[str, Any]:
    """Return a picture with its images as addresses that hold them."""
    return {
        "caption": picture.caption, "description": picture.description, "facts": dict(picture.facts),
        "image": data_address(picture.image), "overlay": data_address(picture.overlay),
    }  # fmt: skip


def data_address(content: bytes | None) -> str | None:
    """Return an encoded image as an address that holds it."""
    if content is None:
        return None
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
