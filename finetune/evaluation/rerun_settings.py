"""How a stored run is run again: device, precision, views and workers, by default as it was trained."""

from dataclasses import dataclass
from typing import Any

from finetune.config.resolve import stored_settings
from finetune.config.settings.review_roots import EvaluateSettings, PredictSettings
from finetune.config.settings.training_groups import Augment
from finetune.data.augmentation.settings import NOT_AUGMENTED
from finetune.data.datamodule import ImageData
from finetune.data.decoding import allow_megapixels
from finetune.data.sequences.batches import build_datamodule
from finetune.data.table import ImageTable
from finetune.errors import ConfigError
from finetune.models.network import Network
from finetune.runs.run import Run
from finetune.runtime.device import DevicePass, choose_device, image_workers
from finetune.runtime.precision import choose_precision


@dataclass(frozen=True)
class InferenceSettings:
    """How images are passed through a network.

    Attributes:
        device_pass: Where, and in which precision.
        batch_size: Images that are passed together.
        workers: Processes that read images; 0 reads in this one.
        views: Of each image.
        augment: How views but the first are varied.
    """

    device_pass: DevicePass
    batch_size: int
    workers: int = 0
    views: int = 1
    augment: Augment = NOT_AUGMENTED

    def images(self, table: ImageTable, network: Network) -> ImageData:
        """Return the batches of a table as a network wants them."""
        size = self.batch_size
        images: ImageData = build_datamodule(table)(
            table, network.spec, self.augment, batch_size=size, eval_batch_size=size, workers=self.workers
        )
        return images


def rerun_settings(
    run: Run,
    device: str,
    *,
    precision: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    views: int | None = None,
) -> InferenceSettings:
    """Return how a run is run again; what is None is as it was in the run, and workers as the cores allow.

    Images of as many pixels as in the run are read.

    Raises:
        ConfigError: There is no such device, the precision is not known, or several views are asked for where the run
            varies no image.
    """
    chosen, stored = choose_device(device), stored_settings(run.config)
    allow_megapixels(stored.data.max_megapixels)
    precision = choose_precision(stored.trainer.precision if precision is None else precision, chosen)
    return InferenceSettings(
        DevicePass(chosen, precision),
        batch_size or stored.data.eval_batch_size,
        image_workers(chosen) if workers is None else workers,
        *own_views(run, views),
    )


def pass_options(settings: EvaluateSettings | PredictSettings) -> dict[str, Any]:
    """Return what of a command's settings is handed on to `rerun_settings` beside the device."""
    return {name: getattr(settings, name) for name in ("precision", "batch_size", "workers", "views")}


def own_views(run: Run, given: int | None) -> tuple[int, Augment]:
    """Return in how many views an image is scored, by default as the run was, and how the run varies images.

    Raises:
        ConfigError: Several views are asked for, and the run varies no image.
    """
    stored = stored_settings(run.config)
    views = given if given is not None else stored.tta_views
    if views > 1 and not stored.augment.enabled:
        raise ConfigError(f"views={views} would take the same image as often: the run augments nothing. Use views=1.")
    return views, stored.augment
