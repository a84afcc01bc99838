"""Out-of-distribution detection of a run: how well it tells other images, and what it tells of unlabelled ones."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.errors import DataError
from finetune.evaluation.bootstrap import binomial_interval
from finetune.evaluation.image_files import Read
from finetune.evaluation.inference import Predictor
from finetune.evaluation.weighted_auc import Ranking
from finetune.models.bundle import Bundle
from finetune.runtime.device import DevicePass
from finetune.runtime.format import known
from finetune.uncertainty.ood.detector import Detector, FeaturesAndLogits, can_guarantee, logit_score
from finetune.uncertainty.ood.settings import OF_LOGITS

_Document = dict[str, Any]
_Array = npt.NDArray[np.float64]
_Floats = npt.NDArray[np.float32]

KEPT = 0.95  # share of the run's own images that are kept where it is asked how many others are kept too
_BINS = 30
_CHUNK = 100  # resamples at once
_EPSILON = 1e-9  # of sums that ought to be whole numbers
_TAIL = 0.01  # of scores that a histogram does not stretch to


def acceptance_document(detector: Detector, seen: Mapping[str, FeaturesAndLogits]) -> _Document:
    """Return what metrics.json holds of a detector: its facts, and how many images of each split it accepts."""
    accepted = {split: share_interval(~detector.is_ood(detector.score(each))) for split, each in seen.items()}
    return {**detector.document(), "accepted": accepted, "notes": notes_of(detector)}


def notes_of(detector: Detector) -> list[str]:
    """Return sentences for who relies on the threshold."""
    if can_guarantee(detector.held_out, detector.accept):
        return []
    return [
        f"{detector.held_out:,} validation images are too few to promise that {detector.accept:.6g} of new ones are "
        "accepted; the threshold is their highest score."
    ]


def ood_line(detector: Detector, unlike: int, number: int) -> str:
    """Return in a sentence how many of some predicted images are unlike the training images."""
    return (
        f"Unlike the training images ({detector.kind}, score above {detector.threshold:.6g}, as "
        f"{1 - detector.accept:.3g} of images like the validation images have): {unlike:,} of {number:,}."
    )


def share_interval(chosen: npt.NDArray[np.bool_]) -> _Document:
    """Return a share with its exact 95 % interval, as plain JSON."""
    hits, number = int(chosen.sum()), len(chosen)
    low, high = binomial_interval(np.array([hits]), np.array([number]))
    return {"value": hits / number if number else None, "low": known(float(low[0])), "high": known(float(high[0]))}


def compare_scores(own: _Array, others: _Array, *, resamples: int, seed: int) -> _Document:
    """Return how well scores tell other images (M,) from the run's own (N,): AUROC, and FPR at 95 % TPR.

    AUROC is the probability that another image has a higher score than one of the run's own, ties counted half. The
    other is the share of the other images that are accepted by the threshold which accepts 95 % of the run's own.
    Intervals are percentiles of resamples of both sets.

    Source: Hendrycks and Gimpel 2017, section 2 (AUROC); Liang et al. 2018, Enhancing the reliability of
    out-of-distribution image detection in neural networks, section 4.3 (FPR at 95 % TPR).
    """
    ranking = Ranking(np.concatenate([own, others]), np.arange(len(own) + len(others)) >= len(own))
    ones = np.ones((len(own), 1), np.float32), np.ones((len(others), 1), np.float32)
    generator = np.random.default_rng(seed)
    areas, rates = [], []
    for start in range(0, resamples, _CHUNK):
        width = min(_CHUNK, resamples - start)
        mine, theirs = (  # how often each of them is drawn with replacement, (N, R)
            generator.multinomial(number, np.full(number, 1 / number), width).T.astype(np.float32)
            for number in (len(own), len(others))
        )
        areas.append(ranking.areas(np.concatenate([mine, theirs]))[0])
        rates.append(false_accepts(own, others, mine, theirs))
    return {
        "auroc": with_interval(float(ranking.areas(np.concatenate(ones))[0][0]), areas),
        "fpr_at_95_tpr": with_interval(float(false_accepts(own, others, *ones)[0]), rates, len(others)),
    }  # fmt: skip


def false_accepts(own: _Array, others: _Array, mine: _Floats, theirs: _Floats) -> _Array:
    """Return the share (R,) of other images that are accepted where 95 % of the run's own are.

    Args:
        own: Scores (N,).
        others: Scores (M,).
        mine: What each of its own counts (N, R).
        theirs: What each other one counts (M, R).
    """
    order, last = np.sort(own), np.argsort(others, kind="stable")
    held = np.cumsum(mine[np.argsort(own, kind="stable")], axis=0, dtype=np.float64)
    places = (held >= KEPT * held[-1] - _EPSILON).argmax(axis=0)
    reached = np.vstack([np.zeros(theirs.shape[1]), np.cumsum(theirs[last], axis=0, dtype=np.float64)])
    passed = np.searchsorted(others[last], order[places], side="right")
    return np.asarray(reached[passed, np.arange(theirs.shape[1])] / reached[-1])


def with_interval(value: float, drawn: Sequence[_Array], number: int = 0) -> _Document:
    """Return a value with the 95 % percentile interval of its resamples, as plain JSON.

    Where all resamples agree they say nothing about the spread: a share of `number` images has the exact binomial bound
    then, any other value none.
    """
    found = np.concatenate(drawn) if drawn else np.zeros(0)
    if len(found) and np.ptp(found) > _EPSILON:
        low, high = np.quantile(found, [0.025, 0.975]).tolist()
        return {"value": value, "low": min(low, value), "high": max(high, value)}
    if len(found) and number:
        return share_interval(np.arange(number) < round(value * number))
    return {"value": value, "low": None, "high": None}


def ood_document(
    bundle: Bundle,
    own: FeaturesAndLogits,
    others: Iterable[Read],
    *,
    source: str | None,
    device_pass: DevicePass,
    resamples: int,
    seed: int,
) -> _Document:
    """Return what an evaluation found of unlike images, as plain JSON.

    Args:
        bundle: The model.
        own: The images that the run is evaluated on.
        others: Images that ought to be told from them.
        source: Where these come from; None for none.
        device_pass: Where to compute.
        resamples: Behind the intervals.
        seed: Of the resamples.

    Raises:
        DataError: None of the other images can be read.
    """
    detector = bundle.detector
    document: _Document = {} if detector is None else acceptance_document(detector, {"own": own})
    if source is None:
        return document
    seen, unread = see_images(Predictor(bundle.network, device_pass), others)
    if detector is not None:
        scores = detector.score(own), detector.score(seen)
        document["called_unlike"] = share_interval(detector.is_ood(scores[1]))
        document["histogram"] = histogram(*scores, detector.threshold)
    told = {
        kind: compare_scores(*scores, resamples=resamples, seed=seed)
        for kind, scores in ood_scores(bundle, own, seen).items()
    }
    notes = [*document.get("notes", []), *([f"{unread:,} images of {source} cannot be read."] if unread else [])]
    counts = {"own": own.logits.shape[-2], "others": seen.logits.shape[-2]}
    return {**document, "data": source, "n": counts, "scores": told, "notes": notes}


def ood_scores(bundle: Bundle, *images: FeaturesAndLogits) -> dict[str, tuple[_Array, ...]]:
    """Return the scores of sets of images, by kind: the bundle's own, and those of logits as references."""
    detector, task = bundle.detector, bundle.task
    found = {} if detector is None else {detector.kind: tuple(detector.score(each) for each in images)}
    for kind in OF_LOGITS:
        if kind not in found and not (kind == "msp" and task == "multilabel"):
            found[kind] = tuple(logit_score(kind, each.logits, task) for each in images)
    return found


def histogram(own: _Array, others: _Array, threshold: float) -> _Document:
    """Return how many scores of each kind are in each bin; the ends hold what lies beyond them."""
    both = np.concatenate([own, others, [threshold]])
    low, high = np.quantile(both, [_TAIL / 2, 1 - _TAIL / 2])
    low, high = min(low, threshold), max(high, threshold)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    counts = {
        name: np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0].tolist()
        for name, scores in (("own", own), ("others", others))
    }
    return {"edges": edges.tolist(), **counts}


def see_images(predictor: Predictor, batches: Iterable[Read]) -> tuple[FeaturesAndLogits, int]:
    """Return what the network makes of images that can be read, and how many cannot.

    Raises:
        DataError: None can be read.
    """
    parts, unread = [], 0
    for _, images, errors, _ in batches:
        unread += sum(error is not None for error in errors)
        if images is not None:
            parts.append(predictor.views(images))
    if not parts:
        raise DataError(f"None of the {unread:,} images of ood_data can be read. Name a folder of images.")
    features = np.concatenate([part.features for part in parts if part.features is not None])
    return FeaturesAndLogits(features, np.concatenate([part.logits for part in parts], axis=1)), unread
