"""Final predictions: what the weights that a run ships say of validation and test."""

from dataclasses import dataclass
from functools import partial

from finetune.config.settings.phases import Strategy
from finetune.config.settings.roots import TrainSettings
from finetune.config.settings.run_groups import OodSettings
from finetune.data.datamodule import ImageData
from finetune.data.table import ImageTable
from finetune.evaluation.calibrated import Outputs
from finetune.evaluation.drift.reference import SPLIT, sample_rows, save_reference
from finetune.models.network import Network
from finetune.runs.run import Run
from finetune.runtime.device import DevicePass
from finetune.training.fit import Recipe, predict_split
from finetune.training.ood import features_and_targets, fit_ood
from finetune.training.run_lifecycle import is_first_rank
from finetune.training.weight_selection import SelectedWeights, check_shares
from finetune.uncertainty.ood.detector import Detector, FeaturesAndLogits
from finetune.uncertainty.ood.settings import check_ood_settings
from finetune.uncertainty.scaling import Method, check_calibration_method


@dataclass(frozen=True)
class FinalizeSettings:
    """What is done when all phases are over.

    Attributes:
        calibration: How probabilities are calibrated.
        shares: Of the way from the probe to the fine-tuned weights that are tried on validation.
        ood: What tells images unlike those of training.
    """

    calibration: Method
    shares: tuple[float, ...]
    ood: OodSettings


def read_finalize_settings(settings: TrainSettings, table: ImageTable) -> FinalizeSettings:
    """Return what is done when all phases are over.

    Raises:
        ConfigError: A setting makes no sense, or not for such labels.
    """
    ood = check_ood_settings(settings.ood, table.task)
    return FinalizeSettings(check_calibration_method(settings.calibration), check_shares(settings.wise_ft), ood)


@dataclass(frozen=True)
class FinalPredictions:
    """What the weights that are kept make of the images.

    Attributes:
        outputs: Rows and logits, by split.
        seen: Features and logits of at most so many images of each split as a run keeps.
        detector: Tells images unlike those of training; None for none.
    """

    outputs: Outputs
    seen: dict[str, FeaturesAndLogits]
    detector: Detector | None


def predict_final(
    run: Run,
    network: Network,
    kept: SelectedWeights,
    strategy: Strategy,
    images: ImageData,
    recipe: Recipe,
    device_pass: DevicePass,
    ood: OodSettings,
) -> FinalPredictions:
    """Return what the weights that are kept say of the val and the test split; all ranks share the images.

    On the way the features that new images are compared with are kept, and what tells unlike images is fitted.
    """
    network.load_state_dict(kept.state)
    cached = strategy.phases[kept.phase].backbone_frozen and recipe.features.exact
    found, seen = {}, {}
    for split in ("val", "test"):
        sample = sample_rows(images.table.rows(split))
        outputs = predict_split(network, images, split, recipe, device_pass, cached=cached, sample=sample)
        if split == SPLIT and is_first_rank() and outputs.features is not None:
            save_reference(run, outputs.sampled, outputs.features)
        found[split], seen[split] = (outputs.rows, outputs.logits), outputs.of_sample
    look = partial(
        features_and_targets, network=network, images=images, recipe=recipe, device_pass=device_pass, cached=cached
    )
    detector = fit_ood(ood, images.table.task, images.table.rows("train"), seen[SPLIT], look)
    return FinalPredictions(found, seen, detector)
