"""Head-only trials, all of them in this process, on features that are computed once."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from finetune.config.settings.roots import TrainSettings
from finetune.errors import FinetuneError
from finetune.runtime.log_filters import quieten
from finetune.search.multirun.scheduler import Stop
from finetune.search.spaces.space import SettingValue
from finetune.search.study.loop import FailurePolicy
from finetune.search.study.samplers import SearchObjective
from finetune.search.study.study import Search, TrialResult, TrialSpec
from finetune.training.build import known_files, load_table, open_cache
from finetune.training.head_trainer import HeadTrainer


def load_trainer(settings: TrainSettings) -> HeadTrainer:
    """Return what trains heads on the images of a configuration, split as a run would split them."""
    quieten()
    table = load_table(settings.data, known=known_files(open_cache(settings.cache)))
    return HeadTrainer(settings, table, ("train", "val"))


def run_trial(trainer: HeadTrainer, settings: TrainSettings, objectives: Sequence[SearchObjective]) -> TrialResult:
    """Fit a head and return its scores on the val split."""
    scores = trainer.val_scores(settings, trainer.table)
    values = [scores[each.name.removeprefix("val/")] for each in objectives]
    for objective, value in zip(objectives, values, strict=True):
        if not np.isfinite(value):
            return TrialResult("failed", cause=f"{objective.name} is not a number")
    return TrialResult("complete", tuple(values))


def run_head_trials(
    search: Search,
    run: Callable[[Mapping[str, SettingValue]], TrialResult],
    policy: FailurePolicy,
    stop: Stop,
    left: Sequence[TrialSpec],
    *,
    on_end: Callable[[TrialSpec, TrialResult], None],
) -> bool:
    """Run the trials of a search one after the other in this process; return whether a failure has ended it.

    Args:
        search: Says what to try.
        run: Runs a trial of its values.
        policy: When to end; what fails here would fail again, and is not retried.
        stop: Says when the user or the system wants it to end.
        left: Trials that an earlier process began.
        on_end: Told of each trial that has ended.
    """
    begun = time.monotonic()
    waiting = list(left)
    while not stop.asked and (policy.timeout is None or time.monotonic() - begun < policy.timeout):
        asked = waiting.pop(0) if waiting else search.ask()
        if asked is None:
            return False
        started = time.monotonic()
        try:
            result = run(asked.values)
        except FinetuneError as error:
            result = TrialResult("failed", cause=str(error))
        except Exception as error:  # noqa: BLE001 - whatever a trial dies of, it dies alone
            result = TrialResult("failed", cause=f"{type(error).__name__}: {error}")
        search.note(asked.number, seconds=round(time.monotonic() - started, 3), slot="in process", attempts=1)
        search.tell(asked.number, result)
        on_end(asked, result)
        if result.state == "failed" and policy.on_failure == "stop":
            return True
    return False
