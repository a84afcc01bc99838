"""Combination methods: from members to a network, and what it says of validation and test."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from finetune.config.resolve import stored_settings
from finetune.ensembles.combine.member_inference import Runner
from finetune.ensembles.combine.members import MemberCandidate, aligned_predictions
from finetune.ensembles.combine.soup import (
    WeightAverage,
    check_same_architecture,
    equal_buffers,
    greedy_soup,
    interpolate_networks,
    uniform_soup,
)
from finetune.ensembles.combine.weighting import greedy_weights, stacking_layer
from finetune.errors import ConfigError, DataError
from finetune.evaluation.metrics import compute_metrics
from finetune.evaluation.predictions import Predictions
from finetune.models.ensemble_network import JoinedHead, Member, Rule, combine, join_networks, scores_of
from finetune.models.network import Network

log = logging.getLogger(__name__)

ANSWERS: dict[str, Rule] = {
    "mean": "mean",
    "logits": "logits",
    "vote": "vote",
    "greedy": "mean",
    "stacking": "stacking",
}
WEIGHTS = ("soup", "greedy_soup", "wise_ft")
LEARNING = ("greedy", "stacking", "greedy_soup", "wise_ft")  # from validation


@dataclass(frozen=True)
class UncalibratedEnsemble:
    """An ensemble before it is calibrated.

    Attributes:
        network: All members as one.
        stored: What it says by split, from stored answers: predictions and logits (N, K); none where images are passed.
        weights: What each candidate counts.
        facts: What else the run keeps of how it was made.
    """

    network: Network
    weights: tuple[float, ...]
    stored: dict[str, tuple[Predictions, npt.NDArray[np.float32]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ValidationScorer:
    """Says how good predictions of validation are.

    Attributes:
        monitor: The metric that decides, such as val/accuracy; equals are decided by the loss.
        sign: 1 where more is better, else -1.
    """

    monitor: str
    sign: float

    def __call__(self, predictions: Predictions) -> tuple[float, float]:
        """Return the score and, negated, the loss."""
        found = compute_metrics(predictions)
        value = found[self.monitor.removeprefix("val/")]
        return (self.sign * value if np.isfinite(value) else -np.inf), -found["loss"]


def combine_outputs(
    method: str, candidates: Sequence[MemberCandidate], judge: ValidationScorer, rounds: int, seed: int
) -> UncalibratedEnsemble:
    """Return an ensemble that joins what its members say.

    Raises:
        ConfigError: The method learns from validation images, and there are none that no model has learnt from.
    """
    val = aligned_predictions(candidates, "val")
    if method in LEARNING and val is None:
        raise ConfigError(
            f"method={method} learns from validation images, and {candidates[0].name} has learnt from those of the "
            "others. Use method=mean, logits or vote."
        )
    weights = np.full(len(candidates), 1 / len(candidates))
    if method == "greedy":
        assert val is not None
        weights = greedy_weights(val, judge, rounds)
    kept = [number for number, weight in enumerate(weights.tolist()) if weight > 0]
    rule = ANSWERS[method]
    task = candidates[0].bundle.task
    members = [candidates[number].bundle for number in kept]
    network = join_networks([Member(each.network, each.scaling) for each in members], rule, task, weights[kept])
    head = network.head[0]
    assert isinstance(head, JoinedHead)
    if method == "stacking":
        assert val is not None and head.mixer is not None
        weight, bias = stacking_layer(val, seed)
        head.mixer.load_state_dict({"weight": weight, "bias": bias})
    stored = {}
    if same_inputs(candidates):
        found = {"val": val, "test": aligned_predictions(candidates, "test")}
        stored = {
            split: (parts[0], combined_logits([parts[number] for number in kept], head))
            for split, parts in found.items() if parts is not None
        }  # fmt: skip
    return UncalibratedEnsemble(network, tuple(weights.tolist()), stored if "test" in stored else {})


@torch.no_grad()
def combined_logits(parts: Sequence[Predictions], head: JoinedHead) -> npt.NDArray[np.float32]:
    """Return the logits (N, K) that a head makes of what its members have said."""
    scores = scores_of(np.stack([part.probabilities for part in parts]), multilabel=head.multilabel)
    if head.mixer is not None:
        return np.asarray(head.mixer(scores.transpose(0, 1).flatten(1).float()).numpy(), np.float32)
    return np.asarray(combine(scores, head.rule, head.weights, multilabel=head.multilabel).numpy(), np.float32)


def same_inputs(candidates: Sequence[MemberCandidate]) -> bool:
    """Return whether all models see an image in the same way but for its mean and deviation, which are exact.

    Else what was stored of each is not what it says inside the ensemble, which shows all of them the same picture.
    """
    specs = [each.bundle.network.spec for each in candidates]
    seen = {(spec.height, spec.width, spec.interpolation, spec.crop_pct, spec.crop_mode, spec.exact) for spec in specs}
    views = {stored_settings(each.run.config).tta_views for each in candidates}
    if len(seen) > 1:
        log.info("The members want images of different sizes or crops; in the ensemble all see those of the first.")
    return len(seen) == 1 and views == {1}


def combine_weights(
    method: str, candidates: Sequence[MemberCandidate], judge: ValidationScorer, runner: Runner, alpha: float | None
) -> UncalibratedEnsemble:
    """Return a network of averaged weights.

    Raises:
        ConfigError: The method does not suit the models.
        DataError: It learns from validation images, and the models have different ones.
    """
    networks = [each.bundle.network for each in candidates]
    names = [each.name for each in candidates]
    check_same_architecture(networks, names)
    check_validation(method, candidates)
    keeps = equal_buffers(networks)

    def refreshed(network: Network) -> Network:
        if not keeps and any(isinstance(part, _BatchNorm) for part in network.backbone.modules()):
            runner.refresh_norms(network)
        return network

    def judged(network: Network) -> tuple[float, float]:
        table, found = runner.outputs(network, "val")
        return judge(Predictions.from_logits(table, found.rows, found.logits))

    if method == "wise_ft":
        if len(candidates) != 2:
            count = len(candidates)
            raise ConfigError(f"method=wise_ft goes from one run to another, and {count} are named: runs=[A,B].")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ConfigError(f"ensemble.alpha={alpha} must be from 0 (the first run) to 1 (the second), or null.")
        mixture = interpolate_networks(networks[0], networks[1], judged, refreshed, alpha)
    else:
        mixture = uniform_soup(networks, refreshed) if method == "soup" else greedy_soup(networks, judged, refreshed)
    return UncalibratedEnsemble(mixture.network, mixture.weights, facts={"tried": candidate_records(mixture, judge)})


def candidate_records(mixture: WeightAverage, judge: ValidationScorer) -> list[dict[str, Any]]:
    """Return what was tried as plain JSON."""
    return [
        {"weights": list(weights), judge.monitor: judge.sign * found[0], "val/loss": -found[1]}
        for weights, found in mixture.tried
    ]


def check_validation(method: str, candidates: Sequence[MemberCandidate]) -> None:
    """Check that the validation images of the first run are those of all, where a method learns from them.

    Raises:
        ConfigError: The models are folds, which have learnt from them.
        DataError: A run has other ones.
    """
    if method not in LEARNING:
        return
    if candidates[0].fold:
        raise ConfigError(f"method={method} learns from validation images, and folds have none in common.")
    first = candidates[0]
    own = set(first.val.ids.tolist()) if first.val is not None else set()
    for each in candidates[1:]:
        if each.val is None or set(each.val.ids.tolist()) != own:
            raise DataError(
                f"method={method} needs runs with the same validation images; {each.name} has others than {first.name}."
            )
