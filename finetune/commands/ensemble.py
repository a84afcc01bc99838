"""finetune ensemble: finished models joined to one, scored, and held against the best of them."""

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from finetune.commands.run_end import finish_run
from finetune.commands.run_start import record_images
from finetune.config.compose import to_dict
from finetune.ensembles.combine.joined_model import (
    against_best,
    calibrate_joined,
    shared_detector,
    with_predictions,
)
from finetune.ensembles.combine.member_inference import Runner
from finetune.ensembles.combine.members import MemberCandidate, check_candidates, find_members
from finetune.ensembles.combine.methods import Joined, Judge, check_combination_method, combine_members
from finetune.evaluation.calibrated import FinishedModel
from finetune.evaluation.images import Vocabulary, run_table
from finetune.evaluation.rerun_settings import rerun_settings
from finetune.report.pages.comparison_summary import against_best_lines
from finetune.report.pages.comparison_summary import candidate as compared
from finetune.runs.run import Run
from finetune.runtime.log_filters import quieten
from finetune.training.run_lifecycle import recorded
from finetune.uncertainty.scaling import check_calibration_method as check_calibration

log = logging.getLogger(__name__)
_Config = dict[str, Any]


def ensemble(cfg: DictConfig) -> None:
    """Join finished models, score the result on the first one's test images, and write its run folder.

    Raises:
        ConfigError: A run or a setting is not there, or models do not fit together.
        DataError: A model has learnt from the test images.
    """
    started = time.monotonic()
    quieten()
    config = to_dict(cfg)
    method = check_combination_method(config["method"])
    calibration = check_calibration(config["calibration"])
    candidates = find_members(config)
    check_candidates(candidates)
    first = candidates[0]
    config["seed"] = config["seed"] if config["seed"] is not None else first.run.config["seed"]
    run, own = Run(Path(HydraConfig.get().runtime.output_dir)), own_config(config, candidates)
    settings = rerun_settings(first.run, config["device"], batch_size=config["batch_size"], workers=config["workers"])
    runner = Runner(first.run, Vocabulary(first.bundle.labels, first.bundle.task), settings)
    candidates = [each if each.fold or each.test is not None else with_predictions(each, runner) for each in candidates]
    judge = Judge(own["monitor"], 1.0 if own["mode"] == "max" else -1.0)
    with recorded(run, own, resume=False) as tracker:
        table = run_table(first.run)
        record_images(run, table)
        log.info("Joining %d models by %s: %s", len(candidates), method, ", ".join(each.name for each in candidates))
        joined = combine_members(method, candidates, judge, runner, config)
        calibrated = calibrate_joined(joined, runner, table, calibration, config["seed"], crossed=first.fold)
        contest = against_best(candidates, joined, judge, calibrated.predictions, run, config)
        facts = {"method": method, "members": member_records(candidates, joined), **joined.facts}
        facts |= {} if contest is None else {"against_best": compared(contest.pairs[0], contest.baseline.name)}
        detector = shared_detector(joined, candidates)
        model = FinishedModel(joined.network, calibrated, table, detector, facts={"ensemble": facts})
        finish_run(
            run, own, model, tracker, started, note={"ensemble": {"method": method, "members": facts["members"]}},
            explains=False, summary=lambda document: None if contest is None else against_best_lines(contest),
        )  # fmt: skip


def own_config(config: _Config, candidates: Sequence[MemberCandidate]) -> _Config:
    """Return the configuration of the ensemble's run: the first model's, and how it was made."""
    first = candidates[0].run.config
    mine = {name: config[name] for name in ("verb", "name", "seed", "bootstrap", "calibration", "report")}
    members = [str(each.run.path) for each in candidates]
    made = {**config["ensemble"], "method": config["method"], "members": members, "command": list(sys.argv[1:])}
    return {**first, **mine, "ensemble": made}


def member_records(candidates: Sequence[MemberCandidate], joined: Joined) -> list[dict[str, Any]]:
    """Return the members and what each counts."""
    return [
        {"name": each.name, "path": str(each.run.path), "weight": weight}
        for each, weight in zip(candidates, joined.weights, strict=True)
    ]
