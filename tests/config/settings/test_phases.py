"""What a strategy may say, and how it is told that it may not."""

from typing import Any

import pytest

from finetune.config.settings.phases import build_strategy
from finetune.errors import ConfigError

PHASE = {"name": "one", "train": "all"}


def config(phase: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the configuration of a strategy of one phase."""
    return {"name": "mine", "adapter": None, "phases": [{**PHASE, **phase}], **more}


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ({"train": "heads"}, "'head'"),
        ({"batchnorm": "freeze"}, "'frozen'"),
        ({"epoch": 3}, "'epochs'"),
        ({"epochs": 0}, "1 or more"),
        ({"train": "last", "fraction": 1.5}, "at most 1"),
        ({"layer_decay": 0}, "above 0"),
        ({"schedule": "cosin"}, "'cosine'"),
        ({"features": "cached"}, "stand still"),
        ({"train": "adapters"}, "strategy.adapter"),
    ],
)
def test_what_cannot_be_trained_is_one_clear_line(phase: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_strategy(config(phase))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_strategy_without_phases_is_refused() -> None:
    with pytest.raises(ConfigError, match="no phases"):
        build_strategy({"name": "mine", "adapter": None, "phases": []})


def test_phases_need_different_names() -> None:
    with pytest.raises(ConfigError, match="name of its own"):
        build_strategy({"name": "mine", "adapter": None, "phases": [PHASE, PHASE]})
