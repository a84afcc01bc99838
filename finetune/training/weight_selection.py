"""Weight selection on validation: the probe's weights, those of fine-tuning, or some between the two (WiSE-FT).

What fine-tuning makes worse is not shipped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from finetune.config.settings.phases import Strategy
from finetune.data.datamodule import ImageData
from finetune.errors import ConfigError
from finetune.models.network import Network
from finetune.runs.run import Run
from finetune.runtime.device import DevicePass
from finetune.training.callbacks.checkpoints import network_state, read_checkpoint
from finetune.training.callbacks.epoch_metrics import monitored
from finetune.training.fit import Recipe, predict_split

_State = dict[str, Tensor]
PROBE, TUNED, BETWEEN = "probe", "fine-tuned", "interpolation"


@dataclass(frozen=True)
class WeightCandidate:
    """Weights that could be kept, and how they do on validation.

    Attributes:
        share: How far they are from the probe's (0) to the fine-tuned ones (1).
        value: The monitored value.
        loss: The validation loss, which decides between equal values.
        error: Standard error of the mean difference of each image's loss from what the probe has.
    """

    share: float
    value: float
    loss: float
    error: float = 0.0


@dataclass(frozen=True)
class SelectedWeights:
    """The weights that a run ships.

    Attributes:
        state: Of the network.
        phase: Number of the phase that they are of; that of the fine-tuning where they lie between two.
        share: As in `WeightCandidate`; None where there was no probe to compare with.
        candidates: All that were compared.
    """

    state: _State
    phase: int
    share: float | None = None
    candidates: tuple[WeightCandidate, ...] = ()

    @property
    def what(self) -> str:
        """What was kept, in a word."""
        return {0.0: PROBE, 1.0: TUNED}.get(self.share if self.share is not None else 1.0, BETWEEN)

    def record(self) -> dict[str, Any]:
        """Return what run.json holds of it."""
        return {"what": self.what, "share": self.share, "candidates": [asdict(each) for each in self.candidates]}

    def summary_line(self, monitor: str) -> str:
        """Return the line of the log."""
        by_share = {each.share: each for each in self.candidates}
        kept, probe, tuned = (by_share[share] for share in (self.share or 0.0, 0.0, 1.0))
        which = {
            PROBE: "the probe, since fine-tuning is not better on validation",
            TUNED: "the fine-tuned weights",
            BETWEEN: f"weights {kept.share:.0%} of the way from the probe to the fine-tuned ones",
        }[self.what]
        ends = ", ".join(
            f"{name} {each.value:.4f} (loss {each.loss:.4f})" for name, each in ((PROBE, probe), (TUNED, tuned))
        )
        return f"Kept {which}: {monitor} {kept.value:.4f} (loss {kept.loss:.4f}); {ends}."


def check_shares(shares: Sequence[Any]) -> tuple[float, ...]:
    """Return the shares of fine-tuning that are tried between the probe and the fine-tuned weights.

    Raises:
        ConfigError: One is no number between 0 and 1.
    """
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ConfigError(
                f"wise_ft={list(shares)} must be numbers between 0 (the probe) and 1 (fine-tuned), both of which "
                "are compared in any case. Use wise_ft=[0.25,0.5,0.75], or [] for no others."
            )
    return tuple(float(share) for share in shares)


def interpolate_weights(probe: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> _State:
    """Return weights a share of the way from one network's to another's; what cannot be divided is the latter's.

    At 0 and 1 the weights are the given ones, bit for bit.

    Source: Wortsman et al. 2022, Robust fine-tuning of zero-shot models, section 3 (WiSE-FT).
    """
    if share in (0, 1):
        return dict(tuned if share else probe)
    return {
        name: torch.lerp(probe[name], value, share) if value.is_floating_point() else value
        for name, value in tuned.items()
    }


def best_candidate(candidates: Sequence[WeightCandidate], mode: str) -> WeightCandidate:
    """Return the candidate with the best value, then the least loss, then the least change of the probe.

    At the probe's own value, and where the value is the loss, another one has to have a loss that is lower by more
    than a standard error: of a few validation images some weights are always a little better by chance.

    Args:
        candidates: At least one, NaN being worse than any number.
        mode: Whether the value is better when higher (max) or lower (min).
    """
    sign = 1.0 if mode == "max" else -1.0
    by_loss = all(each.value == each.loss for each in candidates)
    measured = [each for each in candidates if each.value == each.value and each.loss == each.loss]
    probe = next((each for each in measured if each.share == 0), None)
    if probe is not None:
        measured = [
            each for each in measured
            if each is probe
            or (not by_loss and sign * each.value > sign * probe.value)
            or probe.loss - each.loss > each.error
        ]  # fmt: skip
    return max(measured or candidates, key=lambda each: (sign * each.value, -each.loss, -each.share))


def select_weights(
    run: Run, network: Network, strategy: Strategy, images: ImageData, recipe: Recipe, device_pass: DevicePass, *,
    mode: str, shares: Sequence[float],
) -> SelectedWeights:  # fmt: skip
    """Return the weights that do best on validation; all ranks score their share of it and agree.

    Without a probe before the fine-tuning these are the best epoch's. The fine-tuned ones are those of the best epoch,
    or of the last where the probe is better than each of them.

    Args:
        run: Holds the checkpoints.
        network: Its weights are changed.
        strategy: The phases that were trained.
        images: The images.
        recipe: The loss and the monitored value.
        device_pass: Where the images are scored, and by which ranks.
        mode: Whether that is better when higher (max) or lower (min).
        shares: What is tried between the probe (0) and the fine-tuned weights (1).
    """
    best = read_checkpoint(run.best_checkpoint)
    phase = int(best["finetune"]["phase"])
    if not run.probe_checkpoint.is_file() or not shares:
        return SelectedWeights(network_state(best, averaged=True), phase)
    tuned = read_checkpoint(run.last_checkpoint) if strategy.phases[phase].backbone_frozen else best
    phase = int(tuned["finetune"]["phase"])
    probe = read_checkpoint(run.probe_checkpoint)
    probe_phase = int(probe["finetune"]["phase"])
    first, last = (network_state(each, averaged=True) for each in (probe, tuned))
    plain = replace(recipe, features=replace(recipe.features, tta_views=1))
    candidates, of_probe = [], torch.zeros(0)
    for share in sorted({0.0, *shares, 1.0}):
        network.load_state_dict(interpolate_weights(first, last, share))
        found = predict_split(network, images, "val", plain, device_pass)
        logits, target = torch.from_numpy(found.logits[0]), torch.from_numpy(found.targets)
        loss = float(recipe.loss.cpu()(logits, target))
        value = monitored(recipe.monitor, logits, target, loss, images.table.task, images.table.num_classes)
        pairs = zip(torch.split(logits, 1), torch.split(target, 1), strict=True)
        losses = torch.tensor([float(recipe.loss(*pair)) for pair in pairs])
        of_probe = losses if share == 0 else of_probe
        error = float((losses - of_probe).std() / len(losses) ** 0.5) if len(losses) > 1 else 0.0
        candidates.append(WeightCandidate(share, value, loss, error))
    share = best_candidate(candidates, mode).share
    return SelectedWeights(
        interpolate_weights(first, last, share), phase if share else probe_phase, share, tuple(candidates)
    )
