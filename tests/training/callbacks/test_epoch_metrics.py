"""What a run logs while it trains is what its predictions score when it has finished."""

from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch

from finetune.evaluation.metrics import compute_metrics
from finetune.evaluation.predictions import Predictions
from finetune.training.callbacks.epoch_metrics import MetricsCallback


def predictions_of(
    logits: torch.Tensor, targets: torch.Tensor, task: Literal["multiclass", "multilabel"]
) -> Predictions:
    probabilities = (logits.softmax(1) if task == "multiclass" else logits.sigmoid()).numpy()
    ids = np.array([f"{number}" for number in range(len(logits))], dtype=object)
    labels = tuple(f"class {number}" for number in range(logits.shape[1]))
    return Predictions(ids, ids, targets.numpy(), probabilities, labels, task, pd.DataFrame(index=range(len(ids))))


@pytest.mark.filterwarnings("ignore:(No (positive|negative) samples|Average precision score)")
@pytest.mark.parametrize(
    ("task", "num_classes", "absent"),
    [("multiclass", 2, ()), ("multiclass", 7, ()), ("multiclass", 7, (0, 3)), ("multiclass", 3, (0, 1)),
     ("multilabel", 4, ()), ("multilabel", 4, (2,))],
)  # fmt: skip
def test_logged_values_equal_the_final_scores(
    task: Literal["multiclass", "multilabel"], num_classes: int, absent: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(60, num_classes, generator=generator)
    if task == "multiclass":
        present = torch.tensor([number for number in range(num_classes) if number not in absent])
        targets = present[torch.randint(len(present), (60,), generator=generator)]
    else:
        targets = (torch.rand(60, num_classes, generator=generator) < 0.4).long()
        targets[:, list(absent)] = 0
    callback = MetricsCallback(task, num_classes, None, 1)
    for start in range(0, 60, 25):
        part = slice(start, start + 25)
        callback.add(logits[part], targets[part], torch.tensor(0.5))
    logged = {name.removeprefix("val/"): float(value) for name, value in callback.compute().items()}
    assert logged.pop("loss") == 0.5
    final = compute_metrics(predictions_of(logits, targets, task))
    assert logged == pytest.approx({name: final[name] for name in logged}, abs=1e-5, nan_ok=True)
    assert len(logged) >= 7
