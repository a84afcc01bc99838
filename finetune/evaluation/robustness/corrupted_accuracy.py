"""Accuracy under corruption: images as they are and corrupted, and how many answers stay right."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from finetune.data.datamodule import start_worker
from finetune.data.table import ImageTable, ranged_store
from finetune.data.transforms import InputSpec, eval_transform
from finetune.errors import ConfigError
from finetune.evaluation.bootstrap import binomial_interval, draw_weights, weighted_sums
from finetune.evaluation.inference import Predictor
from finetune.evaluation.predictions import THRESHOLD, PredictionTask, check_finite, to_probabilities
from finetune.evaluation.rerun_settings import InferenceSettings
from finetune.evaluation.robustness.corruptions import corrupt
from finetune.models.bundle import Bundle

_Values = npt.NDArray[np.float64]
Wrong = tuple[str, int]  # name and severity


class CorruptedImages(Dataset[Tensor]):
    """Images of a table, each as it is and in every way of corruption, decoded once."""

    def __init__(self, table: ImageTable, spec: InputSpec, ways: Sequence[Wrong], seed: int) -> None:
        """Read the images of a table for weights; what is drawn depends on the seed and the image's id alone."""
        self.paths = table.frame["path"].tolist()
        self.ids = list(map(str, table.frame["id"]))
        self.store = ranged_store(table.store, spec.value_range)
        self.transform = eval_transform(spec)
        self.ways = ways
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        """Return an image (1 + V, C, H, W), normalised: as it is, and in V ways.

        Raises:
            DataError: It cannot be read.
        """
        picture = self.store.open(self.paths[row], self.transform.spec.channels)
        image = self.transform.pixels(picture)
        key = self.ids[row]
        wrong = (corrupt(image, name, severity, seed=self.seed, key=key) for name, severity in self.ways)
        return torch.stack([self.transform.tensor(each) for each in (image, *wrong)])


def measure_corruptions(
    bundle: Bundle,
    table: ImageTable,
    rows: npt.NDArray[np.int64],
    ways: Sequence[Wrong],
    settings: InferenceSettings,
    seed: int,
) -> Iterator[_Values]:
    """Yield of a few images at a time how right the answers are, (1 + V, n): as they are, and in V ways.

    That is 1 or 0, or the share of the labels that are right where an image may have several. Images are shown in a
    single view.

    Raises:
        DataError: An image cannot be read.
    """
    images = CorruptedImages(table, bundle.network.spec, ways, seed)
    together = max(1, settings.batch_size // (1 + len(ways)))
    batches = [part.tolist() for part in np.split(rows, range(together, len(rows), together))]
    loader = DataLoader(
        images,
        batch_sampler=batches,
        num_workers=settings.workers,
        worker_init_fn=start_worker,
        pin_memory=settings.device_pass.device.type == "cuda",
        generator=torch.Generator(),
    )
    targets, predictor = table.targets(), Predictor(bundle.network, settings.device_pass)
    for part, shown in zip(batches, loader, strict=True):
        chunks = shown.flatten(0, 1).split(settings.batch_size)
        said = [predictor.logits({"image": chunk}) for chunk in chunks]
        logits = bundle.calibrate(torch.cat(said).cpu().numpy()).reshape(len(part), 1 + len(ways), -1)
        yield correct_answers(logits.swapaxes(0, 1), targets[part], table.task)


def correct_answers(logits: npt.NDArray[Any], targets: npt.NDArray[Any], task: PredictionTask) -> _Values:
    """Return how right each answer is (V, N), 0 to 1.

    Args:
        logits: (V, N, K), scaled.
        targets: (N,) numbers of labels, or (N, K) of 0 and 1 for multi-label.
        task: multiclass or multilabel.

    Raises:
        RunError: A probability is not a finite number.
    """
    probabilities = to_probabilities(logits.reshape(-1, logits.shape[-1]), task).reshape(logits.shape)
    check_finite(probabilities)
    if task == "multilabel":
        return np.asarray(((probabilities > THRESHOLD) == targets).mean(axis=2), np.float64)
    return np.asarray(probabilities.argmax(axis=2) == targets, np.float64)


def robustness_document(values: _Values, ways: Sequence[Wrong], *, resamples: int, seed: int) -> dict[str, Any]:
    """Return what metrics.json holds: accuracies with 95 % intervals, None where they are not defined.

    Intervals are percentiles of resamples of whole images, the same for all ways, so that the relative accuracy is that
    of the very same images; an accuracy of 0 or 1 has its exact binomial bound.

    Args:
        values: How right the answers are (1 + V, N).
        ways: What is done, V of them.
        resamples: Draws of the images.
        seed: Of these.
    """
    number = values.shape[1]
    draws = [weighted_sums(values, weights) / number for weights in draw_weights(number, resamples, seed)]
    drawn = np.concatenate(draws, axis=1) if draws else np.empty((len(values), 0))
    names = list(dict.fromkeys(name for name, _ in ways))
    means = values.mean(axis=1)
    corruptions: dict[str, Any] = {}
    for name in names:
        places = [place for place, (other, _) in enumerate(ways, 1) if other == name]
        each = {str(ways[place - 1][1]): _score(means[place], drawn[place], number) for place in places}
        corruptions[name] = {"severities": each, "mean": _score(means[places].mean(), drawn[places].mean(axis=0), 0)}
    wrong, drawn_wrong = means[1:].mean(), drawn[1:].mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative, drawn_relative = wrong / means[0], drawn_wrong / drawn[0]
    return {
        "n": number,
        "passes": 1 + len(ways),
        "seed": seed,
        "clean": _score(means[0], drawn[0], number),
        "mean": _score(wrong, drawn_wrong, 0),
        "relative": _score(relative, drawn_relative, 0),
        "corruptions": corruptions,
    }


def _score(value: float, drawn: _Values, number: int) -> dict[str, float | None]:
    """Return a value with its interval in resamples; `number` is of how many images it is a share, 0 if of none."""
    low, high = np.nan, np.nan
    drawn = drawn[np.isfinite(drawn)]
    if number and value in (0, 1) and len(drawn):
        low, high = (float(end) for end in binomial_interval(np.array(value * number), np.array(number)))
    elif len(drawn):
        low, high = (float(end) for end in np.quantile(drawn, (0.025, 0.975)))
    return {key: float(end) if np.isfinite(end) else None for key, end in
            (("value", value), ("low", low), ("high", high))}  # fmt: skip


_Document = dict[str, Any]


def robustness_of(
    bundle: Bundle,
    table: ImageTable,
    split: str,
    ways: Sequence[Wrong],
    settings: InferenceSettings,
    *,
    resamples: int,
    seed: int,
) -> _Document | None:
    """Return how well the images of a split are answered with something wrong; None where no way is asked for.

    Raises:
        ConfigError: The run reads sequences.
        DataError: An image cannot be read.
    """
    if not ways:
        return None
    if bundle.network.frames is not None:
        raise ConfigError(
            "robustness=true corrupts single images, and this run reads sequences of frames. Set robustness=false."
        )
    console = Console()
    rows = table.rows(split)
    count = 1 + len(ways)
    console.print(f"Robustness: {count} passes over {len(rows):,} images, {count * len(rows):,} in all.")
    parts = measure_corruptions(bundle, table, rows, ways, settings, seed)
    steps = math.ceil(len(rows) / max(1, settings.batch_size // count))
    shown = track(parts, "Corrupting", steps, console=console, transient=True, disable=not console.is_terminal)
    values = np.concatenate(list(shown), axis=1)
    return {"split": split, **robustness_document(values, ways, resamples=resamples, seed=seed)}
