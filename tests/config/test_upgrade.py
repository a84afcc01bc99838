"""Stored configurations of earlier versions become those of today when they are read."""

import re
from typing import Any

from hydra.utils import get_class, get_object

from finetune.config.compose import conf_dir
from finetune.config.upgrade import upgrade


def stored(**changes: Any) -> dict[str, Any]:
    """Return a configuration as an earlier version kept it."""
    return {"data": {"imbalance": "focal", "source": {"_target_": "finetune.data.sources.digits"}}, **changes}


def test_classes_that_have_moved_are_found_where_they_are_now() -> None:
    callbacks = {
        "swa": {"_target_": "finetune.training.averaging.StochasticWeightAveraging", "start": 0.5},
        "snapshots": {"_target_": "finetune.training.snapshots.Snapshots", "cycles": 3},
        "ema": None,
    }
    found = upgrade(stored(callbacks=callbacks))
    assert [get_class(found["callbacks"][name]["_target_"]).__name__ for name in ("swa", "snapshots")] == [
        "StochasticWeightAveraging", "Snapshots",
    ]  # fmt: skip
    assert found["callbacks"]["swa"]["start"] == 0.5 and found["callbacks"]["ema"] is None
    assert callbacks["swa"]["_target_"].startswith("finetune.training.averaging."), "what was read stays as it is"


def test_keys_that_are_younger_than_a_run_have_what_it_did_then() -> None:
    found = upgrade(stored(noise="mixup", ood={"kind": "knn", "accept": 0.9}))
    assert (found["imbalance"], found["label_noise"], found["tta_views"], found["calibration"]) == (
        "focal", "mixup", 1, "none",
    )  # fmt: skip
    assert found["ood"] == {"kind": "knn", "tpr": 0.9, "images": 2000, "neighbours": None, "variance": None}
    assert upgrade(found) == found


def test_every_class_that_conf_names_exists() -> None:
    named = {
        target
        for file in conf_dir().rglob("*.yaml")
        for target in re.findall(r"_target_: (finetune\.[\w.]+)", file.read_text())
    }
    assert len(named) > 10 and all(callable(get_object(target)) for target in named)
