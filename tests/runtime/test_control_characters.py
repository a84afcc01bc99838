"""Control characters of names are written out on the screen, in logs and on pages."""

import io
import logging
from pathlib import Path

import pytest
from command import finetune
from PIL import Image
from rich.console import Console
from rich.table import Table as RichTable

from finetune.report.figures.short_names import shorten
from finetune.report.html.blocks import Column, Section, Table
from finetune.report.html.render import render
from finetune.runtime.control_characters import EscapingFormatter, escape_controls, escape_on_screen

NASTY = "a\x1b[2Jb\x07\x9b\u202ec"


def test_names_are_written_out_and_other_text_stays() -> None:
    assert escape_controls(NASTY) == "a\\x1b[2Jb\\x07\\x9b\\u202ec"
    plain = "日本語, é, a\tb\n– “x” 🙂"
    assert escape_controls(plain) == plain


def test_a_log_line_stays_a_line() -> None:
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "%s is left out", (f"{NASTY}\nforged",), None)
    said = EscapingFormatter("%(message)s").format(record)
    assert "\x1b" not in said and "\n" not in said and "a\\x1b[2J" in said
    assert record.args == (f"{NASTY}\nforged",)


@pytest.mark.parametrize("coloured", [True, False])
def test_rich_writes_them_out_in_texts_and_tables(coloured: bool) -> None:
    escape_on_screen()
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=coloured, width=100)
    table = RichTable("name")
    table.add_row(NASTY)
    console.print(table)
    console.print(NASTY, highlight=False, markup=False)
    said = stream.getvalue()
    assert "\x1b[2J" not in said and "\x07" not in said and said.count("a\\x1b[2Jb") == 2


def test_pages_and_figures_hold_none() -> None:
    page = render(NASTY, [Section("s", NASTY, (Table(NASTY, (Column("name"),), ((NASTY,),)),), NASTY)])
    assert "\x1b" not in page and "\\x1b[2J" in page
    assert "\x1b" not in shorten(NASTY)


def test_a_run_on_such_names_says_them_written_out(tmp_path: Path) -> None:
    for label in (NASTY, "plain"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (8, 8), number * 30).save(tmp_path / "photos" / label / f"{number}.png")
    (tmp_path / "photos" / NASTY / "\x1b[31m.png").write_text("no image")
    done = finetune(
        "model=timm", "model.name=test_resnet", "model.weights=none", "trainer=cpu", "data.image_size=32",
        "logger=none", "strategy=frozen", "data=folder", "data.root=photos", "name=run", "data.workers=0",
        "data.unreadable=skip", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "run").iterdir()
    for text in (done.stdout, done.stderr, (run / "train.log").read_text(), (run / "report.html").read_text()):
        assert "\x1b[2J" not in text and "\x1b[31m" not in text and "\x9b" not in text
    assert "\\x1b[2J" in done.stdout + done.stderr
