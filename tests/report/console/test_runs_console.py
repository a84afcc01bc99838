"""The screen: a list fits it, and what there is no room for is said."""

import io

import pytest
from rich.console import Console

from finetune.commands.runs import DISPENSABLE, RUNS
from finetune.report.console.runs_console import format_value, show_runs
from finetune.report.runs_table.entries import EntryValue, RunEntry


def rows() -> list[RunEntry]:
    own: dict[str, EntryValue] = {
        "id": "57835eb5", "status": "finished", "strategy": "gradual", "model": "tf_efficientnet_lite0",
        "data": "hymenoptera", "test/accuracy": 0.954321, "test/f1_macro": 0.95, "time": 151.0,
        "when": "2026-11-25 06:46", "wandb": "57835eb56b50",
    }  # fmt: skip
    ends = {"test/accuracy_low": 0.92, "test/accuracy_high": 0.98}
    long = RunEntry({**own, "name": "mobile-gradual-lr_1e-4,data_hymenoptera,seed_12"}, lambda: ends)
    return [long, RunEntry({"name": "broken", "status": "damaged"})]


def printed(width: int, columns: tuple[str, ...] = RUNS) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_runs(rows(), columns, console, dispensable=DISPENSABLE.get(columns, ()), total=3, what="runs")
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [50, 60, 80, 100, 140])
def test_list_fits_the_screen_and_nothing_is_cut(width: int) -> None:
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text.replace("columns=[…]", "")
    assert "".join(line[:16].strip() for line in text.splitlines()[1:5]).startswith("mobile-gradual-l")


def test_narrow_screen_keeps_what_matters_and_names_the_rest() -> None:
    narrow, wide = printed(80), printed(200)
    assert "0.954 (0.920–0.980)" in narrow and "finished" in narrow and "No room for" in narrow
    assert "wandb" in narrow.split("No room for")[1] and "No room for" not in wide
    assert all(column in wide for column in RUNS)
    assert "2 of 3 runs" in narrow


def test_columns_that_were_asked_for_are_all_shown_and_none_is_cut() -> None:
    columns = ("name", "wandb", "when", "test/f1_macro", "model", "status", "data", "id")
    head = printed(120, columns).splitlines()[0]
    assert head.split() == list(columns)
    narrow = printed(60, columns)
    assert max(map(len, narrow.splitlines())) <= 60 and "No room" not in narrow
    assert all(value[:3] in narrow for value in ("57835eb56b50", "2026-11-25", "tf_efficientnet", "hymenoptera"))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("test/accuracy", 0.98888, "0.989"), ("optimizer.lr", 1e-05, "1e-05"), ("seed", 0, "0"), ("x", None, "–"),
        ("time", 3725.0, "1h02m"), ("time", 151.2, "2m31s"), ("time", 7.04, "7.0s"), ("x", True, "true"),
        ("lr/head", 5e-06, "5e-06"), ("train/loss", 0.0, "0.000"),
    ],
)  # fmt: skip
def test_values_are_short(key: str, value: EntryValue, text: str) -> None:
    assert format_value(key, value) == text
