"""The verb ensemble: finished models joined to one, scored, and held against the best of them.

It is a composition root, the only code of joining that sees a config; everything it calls takes typed arguments.
"""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from finetune.commands.run_end import publish, show_end, write_results
from finetune.config.compose import to_dict
from finetune.data.table import ImageTable
from finetune.ensembles.combine.member_inference import Runner
from finetune.ensembles.combine.members import MemberCandidate, check_candidates, find_members
from finetune.ensembles.combine.methods import Joined, Judge, check_combination_method, combine_members
from finetune.evaluation.calibrated import Calibrated, calibrate
from finetune.evaluation.compare.comparison import ComparedRun, Comparison, compare_runs, short_name
from finetune.evaluation.images import Vocabulary, run_table
from finetune.evaluation.predictions import Predictions
from finetune.models.fingerprint import backbone_identity
from finetune.report.pages.comparison_summary import candidate as compared
from finetune.report.pages.comparison_summary import screen_table, verdict
from finetune.report.run_page import attempt, write_report
from finetune.runs.run import Run
from finetune.runtime.log_filters import quieten
from finetune.training.run_lifecycle import recorded
from finetune.uncertainty.ood.detector import Detector
from finetune.uncertainty.scaling import Fitted, Method, Scaling
from finetune.uncertainty.scaling import check_calibration_method as check_calibration

log = logging.getLogger(__name__)
_Config = dict[str, Any]
_UNSCALED = Fitted(Scaling(), "none", float("nan"), float("nan"), "There are no validation images to calibrate on.")


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
    runner = Runner.of(first.run, Vocabulary(first.bundle.labels, first.bundle.task), config)
    candidates = [each if each.fold or each.test is not None else asked(each, runner) for each in candidates]
    judge = Judge(own["monitor"], 1.0 if own["mode"] == "max" else -1.0)
    with recorded(run, own, resume=False) as tracker:
        table = run_table(first.run)
        table.save(run.table_file)
        run.update(data={"fingerprint": table.fingerprint(), "unreadable": len(table.skipped)})
        log.info("Joining %d models by %s: %s", len(candidates), method, ", ".join(each.name for each in candidates))
        joined = combine_members(method, candidates, judge, runner, config)
        calibrated = scored(joined, runner, table, calibration, config["seed"], crossed=first.fold)
        contest = against_best(candidates, joined, judge, calibrated.predictions, run, config)
        facts = {"method": method, "members": member_records(candidates, joined), **joined.facts}
        facts |= {} if contest is None else {"against_best": compared(contest.pairs[0], contest.baseline.name)}
        detector = shared_detector(joined, candidates)
        document = write_results(run, own, joined.network, calibrated, detector, more={"ensemble": facts})
        run.update(status="finished", ensemble={"method": method, "members": facts["members"]})
        if config["report"]:
            attempt(lambda: write_report(run), "The report")
        publish(own, document, calibrated.predictions["test"], table, tracker)
        if contest is not None:
            show_contest(contest)
        show_end(run, document, tracker, time.monotonic() - started)


def shared_detector(joined: Joined, candidates: Sequence[MemberCandidate]) -> Detector | None:
    """Return what tells the first model images unlike those of training, where the ensemble has that model's backbone.

    With several backbones, or averaged ones, nothing is known of the features that come of them.
    """
    first = candidates[0].bundle
    if first.detector is None or not first.detector.needs_features:
        return None
    if backbone_identity(joined.network) != backbone_identity(first.network):
        log.info("The ensemble's features are not those of %s: it does not say which images are unlike those of "
                 "training.", candidates[0].name)  # fmt: skip
        return None
    return first.detector


def own_config(config: _Config, candidates: Sequence[MemberCandidate]) -> _Config:
    """Return the configuration of the ensemble's run: the first model's, and how it was made."""
    first = candidates[0].run.config
    mine = {name: config[name] for name in ("verb", "name", "seed", "bootstrap", "calibration", "report")}
    members = [str(each.run.path) for each in candidates]
    made = {**config["ensemble"], "method": config["method"], "members": members, "command": list(sys.argv[1:])}
    return {**first, **mine, "ensemble": made}


def scored(
    joined: Joined, runner: Runner, table: ImageTable, method: Method, seed: int, *, crossed: bool
) -> Calibrated:
    """Return what an ensemble says of validation and test, scaled as suits validation.

    Args:
        joined: The ensemble; where no answers of its members are stored, images are passed through it.
        runner: Passes images.
        table: The first run's images.
        method: none, temperature or vector.
        seed: Deals validation images out to folds.
        crossed: Whether the members have learnt from the validation images, which are then left out.
    """
    outputs = {split: (rows_of(table, known), logits) for split, (known, logits) in joined.stored.items()}
    if not outputs:
        for split in ("test",) if crossed else ("val", "test"):
            (rows, logits) = runner.outputs(joined.network, split)[1]
            outputs[split] = (table.rows(split)[rows], logits)
    if "val" not in outputs:
        plain = {split: Predictions.from_logits(table, *found) for split, found in outputs.items()}
        return Calibrated(plain, _UNSCALED, {})
    return calibrate(table, outputs, method, seed)


def rows_of(table: ImageTable, predictions: Predictions) -> npt.NDArray[np.int64]:
    """Return the rows (N,) of a table that predictions are of."""
    place = {name: row for row, name in enumerate(table.frame["id"].tolist())}
    return np.array([place[name] for name in predictions.ids.tolist()], np.int64)


def asked(candidate: MemberCandidate, runner: Runner) -> MemberCandidate:
    """Return a model with what it says of validation and test, by passing the images through it."""
    said = {}
    for split in ("val", "test"):
        table, (rows, logits) = runner.outputs(candidate.bundle.network, split)
        said[split] = Predictions.from_logits(table, rows, candidate.bundle.calibrate(logits))
    return replace(candidate, val=said["val"], test=said["test"])


def against_best(
    candidates: Sequence[MemberCandidate],
    joined: Joined,
    judge: Judge,
    predictions: dict[str, Predictions],
    run: Run,
    config: _Config,
) -> Comparison | None:
    """Return the ensemble beside its best member, chosen on validation; None where members have no stored answers."""
    able = [each for each in candidates if each.val is not None and each.test is not None]
    if len(able) < len(candidates):
        return None
    best = max(able, key=lambda each: judge(each.val) if each.val is not None else (-np.inf, -np.inf))
    assert best.test is not None
    mine = ComparedRun(short_name(run.path), run.path, predictions["test"])
    theirs = ComparedRun(best.name, best.run.path, best.test)
    return compare_runs([theirs, mine], "test", common=False, resamples=config["bootstrap"], seed=config["seed"])


def member_records(candidates: Sequence[MemberCandidate], joined: Joined) -> list[dict[str, Any]]:
    """Return the members and what each counts."""
    return [
        {"name": each.name, "path": str(each.run.path), "weight": weight}
        for each, weight in zip(candidates, joined.weights, strict=True)
    ]


def show_contest(contest: Comparison) -> None:
    """Print how the ensemble stands beside its best member."""
    console = Console()
    for pair in contest.pairs:
        console.print(screen_table(pair, f"its best member, {contest.baseline.name}"))
        console.print(verdict(pair, contest.baseline.name), highlight=False, markup=False)
        console.print()
