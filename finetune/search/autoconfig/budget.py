"""Time budget of a recipe: views, epochs, or the probe alone, by the measured pace of this machine."""

import re
from dataclasses import dataclass
from typing import Any

from finetune.errors import ConfigError
from finetune.search.autoconfig.dataset_facts import DatasetFacts
from finetune.search.autoconfig.rules import VIEWS
from finetune.training.throughput.throughput import PhaseBenchmark

_UNITS = (3600.0, 60.0, 1.0)  # seconds of an hour, a minute, a second
# the most of the time that a pass may take by which the crop of images is chosen
CROP_SHARE = 0.2
# share of the time that is planned; the rest is for what is not: the trainer, files, a batch that takes longer
PLANNED = 0.85
# share of the time that the passes of the probe may take before views are given up
PROBE_SHARE = 0.35
# of fine-tuning; a single one, whose rate has to rise and fall within it, was worse than its probe where it was tried
LEAST_EPOCHS = 2


@dataclass(frozen=True)
class Pace:
    """What this machine does of a configuration.

    Attributes:
        forward: Images per second that pass through the network.
        epochs: Seconds of training in all phases that train layers of the backbone, for each unit of strategy.epochs.
        fixed: Seconds of training that do not depend on it.
    """

    forward: float
    epochs: float
    fixed: float = 0.0


def seconds_of(text: Any) -> float:
    """Return the seconds of a time such as 90s, 10m or 1h30m.

    Raises:
        ConfigError: It is none.
    """
    found = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", str(text).strip())
    try:
        written = found.groups() if found else (None, None, None)
        parts = [float(part) * unit for part, unit in zip(written, _UNITS, strict=True) if part]
    except ValueError:
        parts = []
    if not parts or sum(parts) <= 0:
        raise ConfigError(f"recipe.budget={text} is not a time. Type one such as 90s, 10m or 1h30m.")
    return sum(parts)


def images_per_second(subject: PhaseBenchmark) -> float:
    """Return the pace of a phase, after a batch that warms up.

    On one thread of a busy CPU the time of the processor counts, which is what a run takes with the CPU to itself.
    """
    images, wall, processor = subject.timed_steps(subject.endless())
    return images / max(1e-9, min(wall, processor) if subject.device.type == "cpu" else wall)


def pass_seconds(facts: DatasetFacts, pace: Pace, views: int) -> float:
    """Return the seconds in which the probe's images pass through the network."""
    return (facts.train * views + facts.val) / pace.forward


def scoring_seconds(facts: DatasetFacts, pace: Pace, candidates: int, tta_views: int) -> float:
    """Return the seconds in which the validation and the test images are scored after training."""
    return ((candidates + tta_views) * facts.val + tta_views * facts.test) / pace.forward


def fit_views(facts: DatasetFacts, pace: Pace, seconds: float, most: int) -> int:
    """Return as many views of the training images as pass through the network in a time, and one at least."""
    return next(
        (views for views in (VIEWS, 2) if views <= most and pass_seconds(facts, pace, views) <= seconds), min(1, most)
    )


def epochs_that_fit(pace: Pace, seconds: float, most: int) -> int:
    """Return the epochs that fit into what is left of a time, none too."""
    return max(0, min(most, int(seconds / pace.epochs))) if pace.epochs > 0 else most
