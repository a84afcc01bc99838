"""Ensemble members: those of named runs, of a sweep's best trials, or of a cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.config.settings.review_roots import EnsembleRootSettings
from finetune.data.table import load_saved_table
from finetune.errors import ConfigError, DataError
from finetune.evaluation.compare.comparison import short_name
from finetune.evaluation.compare.paired import align_predictions
from finetune.evaluation.predictions import Predictions
from finetune.models.bundle import Bundle, load_bundle
from finetune.models.ensemble_network import split_ensemble
from finetune.runs.run import FINISHED, Run
from finetune.runs.sweep_folder import best_folders

SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class MemberCandidate:
    """A finished model.

    Attributes:
        name: As it is called on the screen.
        run: Whose it is.
        bundle: The model.
        val: What it says of images that it has not learnt from; None where that is not stored.
        test: What it says of the test split; None where that is not stored.
        fold: Whether it has learnt from images of its run's validation split, as the folds of one have.
    """

    name: str
    run: Run
    bundle: Bundle
    val: Predictions | None
    test: Predictions | None
    fold: bool = False


def find_members(settings: EnsembleRootSettings) -> list[MemberCandidate]:
    """Return the models that settings name.

    Raises:
        ConfigError: Neither or several of runs, sweep and cv are named, or a run has no finished model.
    """
    options, root = settings.ensemble, Path(settings.folder)
    named = {"runs": settings.runs, "ensemble.sweep": options.sweep, "ensemble.cv": options.cv}
    given = [name for name, value in named.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            "Name what is joined: runs=[A,B,…], ensemble.sweep=FOLDER for the best trials of a sweep, or "
            f"ensemble.cv=FOLDER for the folds of a cross-validation{' – one of them' if given else ''}."
        )
    if options.cv is not None:
        return _folds_of(Run.find(str(options.cv), root))
    if options.sweep is not None:
        runs = [Run.open(Path(folder)) for folder in best_folders(str(options.sweep), "ensemble.sweep", settings.top)]
    else:
        runs = [Run.find(str(name), root) for name in settings.runs or ()]
    if options.snapshots:
        return [found for run in runs for found in snapshots_of(run)]
    return [_member_candidate(run) for run in runs]


def _member_candidate(run: Run) -> MemberCandidate:
    """Return the model of a finished run, with its stored predictions."""
    stored = {split: Predictions.load(run.predictions_file(split)) for split in ("val", "test")
              if run.predictions_file(split).is_file()}  # fmt: skip
    check_finished(run)
    return MemberCandidate(short_name(run.path), run, load_bundle(run.model_dir), stored.get("val"), stored.get("test"))


def _folds_of(run: Run) -> list[MemberCandidate]:
    """Return the models of a cross-validation's folds, of whose predictions none are of the same images.

    Raises:
        ConfigError: The run is no cross-validation, or is not finished.
    """
    if run.record.get("crossval") is None:
        raise ConfigError(f"ensemble.cv={run.path} is no cross-validation. Name runs instead: runs=[A,B].")
    check_finished(run)
    folders = sorted(file.parent for file in (run.path / "folds").glob("*/run.json"))
    found = [Run(folder) for folder in folders if Run(folder).record.get("status") == FINISHED]
    bundles = {fold.path.name: load_bundle(fold.model_dir) for fold in found}
    if not found:  # they were trained in one process, and are in one file
        whole = load_bundle(run.model_dir)
        bundles = {
            str(number): replace(whole, network=each.network, scaling=each.scaling)
            for number, each in enumerate(split_ensemble(whole.network))
        }
    return [MemberCandidate(f"fold {name}", run, bundle, None, None, True) for name, bundle in bundles.items()]


def snapshots_of(run: Run) -> list[MemberCandidate]:
    """Return the networks that a run has kept at the ends of its cycles.

    Raises:
        ConfigError: It has kept none.
    """
    folders = sorted(file.parent for file in (run.path / SNAPSHOTS).glob("*/model.json"))
    if not folders:
        raise ConfigError(
            f"{run.path} has kept no snapshots. Train with: finetune schedule.cycles=3 callbacks=snapshots"
        )
    return [MemberCandidate(f"snapshot {folder.name}", run, load_bundle(folder), None, None) for folder in folders]


def check_finished(run: Run) -> None:
    """Check that a run has come to its end.

    Raises:
        ConfigError: It has not.
    """
    if run.status != FINISHED:
        raise ConfigError(f"{run.path} is {run.status}, and only finished runs can be joined. Leave it out.")


def check_candidates(candidates: Sequence[MemberCandidate]) -> None:
    """Check that models can be joined, and that none has learnt from the test images.

    Raises:
        ConfigError: There are fewer than two, one is there twice, or their labels differ.
        DataError: Test images differ, or a model has learnt from some.
    """
    first = candidates[0]
    if len(candidates) < 2:
        raise ConfigError("An ensemble needs two models or more: runs=[A,B].")
    keys = [(each.run.path.resolve(), each.name) for each in candidates]
    if len(set(keys)) < len(keys):
        raise ConfigError("The same run is named twice. Name each run once.")
    for each in candidates:
        if (each.bundle.labels, each.bundle.task) != (first.bundle.labels, first.bundle.task):
            raise ConfigError(f"{each.name} and {first.name} know other labels. Join runs of the same labels.")
        if first.test is not None and each.test is not None:
            align_predictions(first.test, each.test, (first.name, each.name), common=False)
    tested = image_digests(first.run, ("test",))
    for each in candidates[1:]:
        seen = tested & image_digests(each.run, ("train", "val")) if each.run.path != first.run.path else set()
        if seen:
            raise DataError(
                f"{each.name} has learnt from {len(seen):,} of the {len(tested):,} test images of "
                f"{first.name}, which would flatter the ensemble. Join runs with the same splits "
                "(data.splits.seed)."
            )


def image_digests(run: Run, splits: Sequence[str]) -> set[str]:
    """Return the digests of a run's images of some splits."""
    if not run.table_file.is_file():
        return set()
    frame = load_saved_table(run.table_file)[0]
    return {name for name in frame.loc[frame["split"].isin(splits), "digest"].tolist() if isinstance(name, str)}


def aligned_predictions(candidates: Sequence[MemberCandidate], split: str) -> list[Predictions] | None:
    """Return the stored predictions of a split over the same images, or None where they are not all stored.

    Of validation, those images are taken that no model has learnt from.

    Raises:
        DataError: There is no such image.
    """
    found = [each.val if split == "val" else each.test for each in candidates]
    stored = [each for each in found if each is not None]
    if len(stored) < len(found):
        return None
    common = set.intersection(*(set(each.ids.tolist()) for each in stored))
    order = [name for name in stored[0].ids.tolist() if name in common]
    if not order:
        raise DataError(
            f"The runs have no {split} image in common. Join runs with the same splits, or use method=mean."
        )
    result = []
    for each in stored:
        place = {name: row for row, name in enumerate(each.ids.tolist())}
        result.append(each.take([place[name] for name in order]))
    return result
