"""Summaries: every number is there, on 80 columns, plain in a pipe, and what is to be copied is in one piece."""

import shlex
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console, RenderableType
from rich.text import Text

from finetune.config.settings.phases import Phase
from finetune.report.console.start_console import data_lines, model_line, phase_row, start_summary
from finetune.report.run_summary import end_summary, print_summary, quoted

COUNTS = {**dict.fromkeys("01245679", 126), "8": 122, "3": 128}
DATA = data_lines("digits", "multiclass", {"train": 1257, "val": 270, "test": 271}, COUNTS)
MODEL = model_line("tf_efficientnet_lite0", "bundled", 3_384_234, (3, 64, 64))
PHASES = (
    phase_row(Phase("probe", "head", epochs=20, features="cached"), 12_810, 5e-4),
    phase_row(Phase("finetune", "all", epochs=5, layer_decay=0.8), 3_384_234, 5e-4),
)
FOLDER = Path("runs/tf_efficientnet_lite0_lp_ft_with_a_long_name_of_changed_overrides/2026-01-01_12-00-00")


def document() -> dict[str, Any]:
    """Return a small metrics.json."""
    score = {"value": 0.98519, "low": 0.9667, "high": 0.99631}
    unknown = {"value": None, "low": None, "high": None}
    classes = [{"label": "8", "support": 27, "recall": 0.92593}, {"label": "3", "support": 30, "recall": 1.0}]
    return {
        "test": {"accuracy": score, "f1_macro": {**score, "value": 0.9801}, "roc_auc": unknown, "loss": score},
        "val": {"accuracy": {**score, "value": 0.9741}},
        "per_class": {"test": [*classes, {"label": "absent", "support": 0, "recall": None}]},
        "n": {"val": 270, "test": 271},
    }


def printed(summary: RenderableType, width: int = 80) -> str:
    """Return what is printed into a pipe."""
    console = Console(file=StringIO(), width=width, highlight=False)
    print_summary(summary, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def start(data: list[Text] = DATA) -> RenderableType:
    """Return the start summary of the default run."""
    return start_summary(data, MODEL, "lp_ft", PHASES)


def end() -> RenderableType:
    """Return an end summary."""
    return end_summary(document(), seconds=151.4, folder=FOLDER, notes=["W&B offline: wandb sync [folder]"])


def test_start_says_data_model_and_phases() -> None:
    text = printed(start())
    for fact in ("train 1,257, val 270, test 271", "10 classes", "122 of the rarest (8)", "128 of the commonest (3)"):
        assert fact in text
    assert "tf_efficientnet_lite0, weights: bundled, 3.38 M parameters, 64 px" in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "probe head, on cached features 12.8 k 20 0.0005" in rows
    assert "finetune all layers 3.38 M 5 0.0005 x 0.8/layer" in rows
    assert "unreadable" not in text


def test_skipped_images_are_said() -> None:
    skipped = data_lines("photos", "multilabel", {"train": 9}, {"a": 3, "b": 3, "c": 3}, skipped=1204)
    text = printed(start(skipped))
    assert "1,204 unreadable images left out" in text
    assert "3 labels, any number per image" in text
    assert "balanced: 3 training images of each" in text


def test_end_says_scores_with_their_intervals() -> None:
    rows = [line.split() for line in printed(end()).splitlines()]
    assert ["score", "test", "95", "%", "interval", "val"] in rows
    assert ["accuracy", "0.9852", "0.9667", "to", "0.9963", "0.9741"] in rows
    assert ["macro", "F1", "0.9801", "0.9667", "to", "0.9963", "undefined"] in rows
    assert ["ROC", "AUC", "undefined", "undefined"] in rows
    assert ["images", "271", "270"] in rows
    assert ["time", "2", "min", "31", "s"] in rows
    assert ["weakest", "class", "8:", "recall", "0.9259", "on", "27", "images"] in rows


def test_paths_and_commands_are_never_broken() -> None:
    lines = printed(end(), width=40).splitlines()
    assert f"run       {FOLDER}" in lines
    assert f"next      finetune evaluate run={FOLDER}" in lines
    assert f"          finetune predict run={FOLDER} input=FOLDER" in lines
    assert "          W&B offline: wandb sync [folder]" in lines


def test_names_with_brackets_are_not_taken_for_styles() -> None:
    data = data_lines("[red]", "multiclass", {"train": 9}, {"[bold]x": 3, "[/b]": 6})
    text = printed(start_summary(data, MODEL, "[s]", [phase_row(Phase("[p]", "head"), 5, 0.1)]))
    assert all(name in text for name in ("[red]", "[bold]x", "[/b]", "[s]", "[p]"))


@pytest.mark.parametrize("summary", [start(), end()], ids=["start", "end"])
def test_pipe_gets_plain_text(summary: RenderableType) -> None:
    text = printed(summary)
    assert "\x1b" not in text
    assert text.isascii()


def test_start_fits_80_columns_without_wrapping() -> None:
    assert printed(start(), 80).split() == printed(start(), 200).split()
    assert len(printed(start(), 80).splitlines()) == len(printed(start(), 200).splitlines())
    assert max(len(line.rstrip()) for line in printed(start(), 80).splitlines()) <= 80


@pytest.mark.parametrize(
    "name", ["runs/plain-1.0", "runs/with space", "runs/lr=1,2", "runs/it's", 'runs/a"b', "runs/a\\b"]
)
def test_run_command_reaches_hydra_as_it_was_meant(name: str) -> None:
    words = shlex.split(f"run={quoted(Path(name))}")
    assert len(words) == 1
    assert OverridesParser.create().parse_override(words[0]).value() == name
