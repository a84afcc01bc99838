"""The study as a trial sees it from its own process: a place to report to, which says whether to go on."""

from collections.abc import Mapping
from typing import Any

import optuna

from finetune.search.study.samplers import build_pruner
from finetune.search.study.storage import open_storage
from finetune.search.study.study import load_study, quiet, trial_of


class Reporter:
    """A trial in its study, with the pruner that the study does not keep."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        """Open the study that the sweep has told this process of."""
        place = message["storage"]
        storage = open_storage(place)
        study = load_study(storage, message["study"], place)
        study.pruner = build_pruner(message["pruner"], message["pruner_options"])
        self.trial: optuna.Trial = trial_of(study, storage, message["number"])

    def is_behind(self, epoch: int, value: float) -> bool:
        """Report a value and return whether the pruner would end the trial."""
        with quiet():
            self.trial.report(value, epoch)
            return bool(self.trial.should_prune())
