"""finetune ensemble: finished models joined to one, scored, and held against the best of them."""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from finetune.commands.run_end import finish_run
from finetune.commands.run_start import record_images
from finetune.config.resolve import resolve, stored_settings
from finetune.config.settings.review_roots import EnsembleRootSettings
from finetune.config.settings.roots import TrainSettings
from finetune.ensembles.combine.joined_model import against_best, calibrate_joined, shared_detector, with_predictions
from finetune.ensembles.combine.member_inference import Runner
from finetune.ensembles.combine.members import MemberCandidate, check_candidates, find_members
from finetune.ensembles.combine.methods import (
    WEIGHTS,
    UncalibratedEnsemble,
    ValidationScorer,
    combine_outputs,
    combine_weights,
)
from finetune.evaluation.calibrated import FinishedModel
from finetune.evaluation.images import Vocabulary, run_table
from finetune.evaluation.rerun_settings import rerun_settings
from finetune.report.pages.comparison_summary import against_best_lines
from finetune.report.pages.comparison_summary import candidate as compared
from finetune.runs.run import Run
from finetune.runtime.log_filters import quieten
from finetune.training.run_lifecycle import record_outcome
from finetune.uncertainty.scaling import check_calibration_method as check_calibration

log = logging.getLogger(__name__)


def ensemble(cfg: DictConfig) -> None:
    """Join finished models, score the result on the first one's test images, and write its run folder.

    Raises:
        ConfigError: A run or a setting is not there, or models do not fit together.
        DataError: A model has learnt from the test images.
    """
    started = time.monotonic()
    quieten()
    settings = resolve(cfg, EnsembleRootSettings)
    method, calibration = settings.method, check_calibration(settings.calibration)
    candidates = find_members(settings)
    check_candidates(candidates)
    first = candidates[0]
    run, own = Run(Path(HydraConfig.get().runtime.output_dir)), ensemble_settings(settings, candidates)
    rerun = rerun_settings(first.run, settings.device, batch_size=settings.batch_size, workers=settings.workers)
    runner = Runner(first.run, Vocabulary(first.bundle.labels, first.bundle.task), rerun)
    candidates = [each if each.fold or each.test is not None else with_predictions(each, runner) for each in candidates]
    judge = ValidationScorer(own.monitor, 1.0 if own.mode == "max" else -1.0)
    with record_outcome(run, own, resume=False) as tracker:
        table = run_table(first.run)
        record_images(run, table)
        log.info("Joining %d models by %s: %s", len(candidates), method, ", ".join(each.name for each in candidates))
        if method in WEIGHTS:
            joined = combine_weights(method, candidates, judge, runner, settings.ensemble.alpha)
        else:
            joined = combine_outputs(method, candidates, judge, settings.ensemble.rounds, own.seed)
        calibrated = calibrate_joined(joined, runner, table, calibration, own.seed, crossed=first.fold)
        comparison = against_best(candidates, joined, judge, calibrated.predictions, run, own)
        facts = {"method": method, "members": member_records(candidates, joined), **joined.facts}
        facts |= {} if comparison is None else {"against_best": compared(comparison.pairs[0], comparison.baseline.name)}
        detector = shared_detector(joined, candidates)
        model = FinishedModel(joined.network, calibrated, table, detector, facts={"ensemble": facts})
        finish_run(
            run, own, model, tracker, started, note={"ensemble": {"method": method, "members": facts["members"]}},
            explains=False, summary=lambda document: None if comparison is None else against_best_lines(comparison),
        )  # fmt: skip


def ensemble_settings(settings: EnsembleRootSettings, candidates: Sequence[MemberCandidate]) -> TrainSettings:
    """Return the settings of the ensemble's run: the first model's, and how it was made."""
    first = candidates[0].run.config
    mine = {name: getattr(settings, name) for name in ("verb", "name", "bootstrap", "calibration", "report")}
    mine["seed"] = settings.seed if settings.seed is not None else first["seed"]
    members = [str(each.run.path) for each in candidates]
    made = {**asdict(settings.ensemble), "method": settings.method, "members": members, "command": list(sys.argv[1:])}
    return stored_settings({**first, **mine, "ensemble": made})


def member_records(candidates: Sequence[MemberCandidate], joined: UncalibratedEnsemble) -> list[dict[str, Any]]:
    """Return the members and what each counts."""
    return [
        {"name": each.name, "path": str(each.run.path), "weight": weight}
        for each, weight in zip(candidates, joined.weights, strict=True)
    ]
