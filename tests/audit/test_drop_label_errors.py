"""Images with turned labels are left out of training, and of nothing else; a run keeps their list."""

import json
from dataclasses import replace
from pathlib import Path

import command
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny import tiny_table

from finetune.audit.drop_label_errors import (
    drop_rows,
    find_suspects,
    keep_at_least_one,
    read_suspects,
    wait_for_file,
    write_suspects,
)
from finetune.data.table import ImageTable, object_column
from finetune.errors import RunError
from finetune.runs.history import RunHistory
from finetune.runs.run import Run


def turned_table(number: int) -> tuple[ImageTable, np.ndarray, list[str]]:
    """Return a table of two classes with features that tell them apart, and the ids of training images turned."""
    table = tiny_table(train=number, val=10, test=10)
    truth = np.arange(len(table)) % 2
    features = 4 * np.eye(2, 6)[truth] + np.random.default_rng(0).normal(size=(len(table), 6))
    labels = np.array(["a", "b"])[truth]
    turned = np.arange(0, number + 20, 11)
    labels[turned] = np.where(labels[turned] == "a", "b", "a")
    frame = table.frame.assign(label=object_column(labels.tolist()))
    ids = [frame["id"].iloc[row] for row in turned if row < number]
    return replace(table, frame=frame, labels=("a", "b")), features[:number].astype(np.float32), ids


def test_turned_labels_are_left_out_of_training_alone(tmp_path: Path) -> None:
    table, features, turned = turned_table(120)
    found = find_suspects(table, features, folds=4, seed=0, group=None)
    assert len(set(turned) & set(found["id"])) >= 0.8 * len(turned) and len(found) <= len(turned) + 2
    assert found["quality"].is_monotonic_increasing and (found["likely"] != found["label"]).all()
    write_suspects(tmp_path / "run" / "suspects.csv", found)
    ids = read_suspects(tmp_path / "run" / "suspects.csv")
    assert ids == found["id"].tolist()
    kept = drop_rows(table, [*ids, *table.frame["id"].iloc[table.rows("test")]])
    assert kept.sizes() == {"train": 120 - len(ids), "val": 10, "test": 10}
    assert not set(ids) & set(kept.frame["id"])


@pytest.mark.parametrize("several", [False, True])
def test_a_class_keeps_its_images_where_all_are_suspect(several: bool) -> None:
    targets, wrong = np.array([0, 0, 1, 1, 2]), np.array([True, False, True, True, False])
    given = np.eye(3)[targets] if several else targets
    assert keep_at_least_one(wrong, given).tolist() == [True, False, False, False, False]
    assert wrong.sum() == 3, "what was given stays"


def test_a_list_that_does_not_come_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="was not written by the first process"):
        wait_for_file(tmp_path / "suspects.csv", 0.0)


def test_a_run_trains_without_suspects_and_says_so(tmp_path: Path) -> None:
    generator, rows = np.random.default_rng(0), []
    for number in range(72):
        label, split = number % 2, "train" if number < 48 else ("val", "test")[number % 4 // 2]
        pixels = generator.normal(60 + 120 * label, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        shown = 1 - label if number in (6, 17) else label
        rows.append({"path": f"{number}.png", "label": ["dark", "light"][shown], "split": split})
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    words = ["data=csv", "data.path=table.csv", "strategy=frozen", "strategy.epochs=6", "model=timm",
             "model.name=test_resnet", "model.weights=none", "data.image_size=32", "logger=none", "report=false",
             "explain.images=0", "bootstrap=10", "label_noise=drop_suspects", "regularize.l1=0.01", "trainer=cpu",
             "trainer.threads=1", f"cache.dir={tmp_path}/kept", "head.standardize=true"]  # fmt: skip
    done = command.finetune(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = Run.all(tmp_path / "runs")
    ids = read_suspects(run.path / "suspects.csv")
    assert {"6.png", "17.png"} <= set(ids)
    assert f"label_noise=drop_suspects: {len(ids)} training images are left out" in done.stderr
    assert run.record["data"]["left_out"] == len(ids)
    assert f"train {48 - len(ids)}, val 12, test 12" in done.stdout
    assert len(pd.read_parquet(run.table_file)) == 72
    share = json.loads(run.metrics_file.read_text())["model"]["head_zeros"]
    weight = torch.load(run.best_checkpoint, weights_only=True)["state_dict"]["network.head.2.weight"]
    assert share == pytest.approx(float((weight == 0).double().mean())) and share > 0
    history = [row["head/zeros"] for row in RunHistory(run.history_file).read() if "head/zeros" in row]
    assert len(history) == 6
