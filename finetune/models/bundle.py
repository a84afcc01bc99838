"""The bundle: a finished model on disk, weights as safetensors and beside them all that is needed to use them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import safetensors.torch
from safetensors import SafetensorError

from finetune.data.table import LabelTask
from finetune.data.transforms import InputSpec
from finetune.errors import ConfigError, RunError
from finetune.models.adapters import merge
from finetune.models.ensemble_network import build_joined
from finetune.models.heads.modules import HeadSpec, fold_standardize, standardize_layer
from finetune.models.network import Network, build_network
from finetune.runs.run import replacing, write_json
from finetune.runs.stored_files import read_stored_json
from finetune.uncertainty.ood.detector import Detector, load_detector, save_detector
from finetune.uncertainty.scaling import Scaling, check_calibration_method

_VERSION = 1
_UNSCALED = Scaling()


@dataclass(frozen=True)
class Bundle:
    """A model that is ready to predict.

    Attributes:
        network: In eval mode.
        labels: Label names; a label's number is its position.
        task: multiclass or multilabel.
        threshold: Probability from which a label of a multi-label task is predicted.
        scaling: How logits are scaled, so that probabilities can be taken literally.
        detector: Tells images unlike those of training; None where the run has none.
    """

    network: Network
    labels: tuple[str, ...]
    task: LabelTask
    threshold: float = 0.5
    scaling: Scaling = Scaling()
    detector: Detector | None = None

    def calibrate(self, logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return logits (N, K) or (V, N, K), in several views, scaled so that probabilities can be made of them."""
        return self.scaling.apply(logits, multilabel=self.task == "multilabel")


def save_bundle(
    network: Network,
    labels: tuple[str, ...],
    task: LabelTask,
    folder: Path,
    scaling: Scaling = _UNSCALED,
    detector: Detector | None = None,
) -> None:
    """Write weights.safetensors and model.json; adapters and the head's standardising are merged into the weights.

    The network itself is not changed. What tells unlike images goes into a file of its own.
    """
    merged = merge(network)
    options = network.options
    if "ensemble" not in options:  # the members of one are finished models already
        merged.head = fold_standardize(merged.head)
        standardize = standardize_layer(merged.head) is not None
        options = options | {"head": options["head"] | {"standardize": standardize}}
    state = {name: value.detach().cpu().contiguous().clone() for name, value in merged.state_dict().items()}
    with replacing(folder / "weights.safetensors") as temporary:
        safetensors.torch.save_file(state, temporary)
    save_detector(detector, folder)
    write_json(folder / "model.json", {
        "version": _VERSION, "name": network.name, "labels": labels, "task": task, "options": options,
        "input": dataclasses.asdict(network.spec), "threshold": 0.5,
        "temperature": scaling.temperature, "calibration": vars(scaling),
    })  # fmt: skip


def load_bundle(folder: Path) -> Bundle:
    """Return the model in a folder.

    Raises:
        ConfigError: The folder holds no whole model.
    """
    for name in ("model.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} holds no model ({name} is missing). Name a finished run: run=PATH.")
    try:
        meta = read_stored_json(folder / "model.json")
        network = build_stored(meta)
        network.spec = InputSpec.stored(meta["input"])
        network.load_state_dict(safetensors.torch.load_file(folder / "weights.safetensors"))
        detector = load_detector(folder)
    except (KeyError, TypeError, ValueError, RuntimeError, RunError, SafetensorError) as error:
        raise ConfigError(
            f"The model in {folder} is damaged: {str(error).splitlines()[0]}. Use another run, or train it again."
        ) from error
    return Bundle(network.eval(), tuple(meta["labels"]), meta["task"], meta["threshold"], read_scaling(meta), detector)


def build_stored(meta: Mapping[str, Any]) -> Network:
    """Return the network that a stored description means, without its weights."""
    options = dict(meta["options"])
    if "ensemble" in options:
        return build_joined(options["ensemble"])
    head = HeadSpec(**options.pop("head"))
    return build_network(meta["name"], num_classes=len(meta["labels"]), weights="none", head=head, **options)


def read_scaling(meta: Mapping[str, Any]) -> Scaling:
    """Return how a stored model's logits are scaled; older ones know a temperature alone."""
    found = meta.get("calibration")
    if found is None:
        temperature = float(meta.get("temperature", 1.0))
        return Scaling() if temperature == 1 else Scaling("temperature", (1 / temperature,))
    return Scaling(check_calibration_method(found["method"]), tuple(found["scale"]), tuple(found["shift"]))
