"""Phases of a strategy: which layers move, for how long, at what rates, and how BatchNorm behaves.

Keys that a phase leaves out have the values that change nothing, which stand here since a list has no defaults in
conf/.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finetune.config.settings.checked import converted, hints
from finetune.errors import ConfigError, nearest

Moves = Literal["head", "all", "last", "adapters", "bias_norm"]
CHOICES = {
    "train": ("head", "all", "last", "adapters", "bias_norm"),
    "batchnorm": ("frozen", "train"),
    "features": ("none", "cached"),
    "schedule": ("cosine", "linear", "constant"),
}


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which the same layers move.

    Attributes:
        name: Shown in the history and on the screen.
        train: What moves beside the head: nothing more (head), every layer (all), the deepest layers (last), low-rank
            adapters (adapters), or biases and norms (bias_norm; Ben Zaken et al. 2022, BitFit).
        fraction: With last, the share of layers that moves, from the head down.
        epochs: Epochs of the phase.
        lr: Learning rate; None for the optimizer's.
        head_lr: The head's rate as a multiple of the full rate, which layer_decay lowers towards the input.
        layer_decay: Each layer's rate is this multiple of that of the next deeper one.
        batchnorm: frozen leaves BatchNorm's statistics as they were pretrained; train lets those of moving layers
            follow the batches. Its scales and shifts move with their layer in either case.
        features: cached passes each view of an image through what stands still once: the backbone where the head alone
            moves; else the layers before those that move, where that saves time.
        schedule: cosine, linear or constant; None for the run's.
        warmup: Share of the phase's steps in which the rate rises; None for the run's.
    """

    name: str
    train: Moves
    fraction: float = 1.0
    epochs: int = 1
    lr: float | None = None
    head_lr: float = 1.0
    layer_decay: float = 1.0
    batchnorm: Literal["frozen", "train"] = "frozen"
    features: Literal["none", "cached"] = "none"
    schedule: str | None = None
    warmup: float | None = None

    @property
    def backbone_frozen(self) -> bool:
        """Whether the head alone is trained, on cached features."""
        return self.features == "cached" and self.train == "head"


@dataclass(frozen=True)
class AdapterSpec:
    """Low-rank adapters: their rank, scale (alpha / rank) and target layers; no targets for the model's usual ones."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Strategy:
    """Phases in order, and the adapters they move where they move any.

    Attributes:
        name: Of the option.
        phases: In order.
        adapter: None for none.
        epochs: What phases refer to as strategy.epochs; None where the strategy has no such key.
    """

    name: str
    phases: tuple[Phase, ...]
    adapter: AdapterSpec | None = None
    epochs: int | None = None

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Strategy":
        """Return the strategy that a configuration describes, checked."""
        return build_strategy(content)


def build_strategy(config: Mapping[str, Any]) -> Strategy:
    """Return the strategy that a configuration describes.

    Args:
        config: name, phases, and adapter (or null); other keys are values that the phases refer to.

    Raises:
        ConfigError: A phase is not one that can be trained.
    """
    entries = config["phases"]
    if not entries:
        raise ConfigError(f"strategy={config['name']} has no phases. Give at least one in strategy.phases.")
    adapter = config.get("adapter")
    spec = (
        None
        if adapter is None
        else AdapterSpec(
            **{
                name: converted(f"strategy.adapter.{name}", adapter, name, hint, None)
                for name, hint in hints(AdapterSpec).items()
            }
        )
    )
    phases = tuple(build_phase(entry, number) for number, entry in enumerate(entries))
    names = [phase.name for phase in phases]
    if len(set(names)) < len(names):
        raise ConfigError(f"strategy.phases: each phase needs a name of its own, not {', '.join(names)}.")
    check_adapters(config["name"], phases, spec)
    epochs = converted("strategy.epochs", config, "epochs", int | None, None) if "epochs" in config else None
    return Strategy(str(config["name"]), phases, spec, epochs)


def build_phase(entry: Mapping[str, Any], number: int) -> Phase:
    """Return a phase, checked."""
    known = [field.name for field in dataclasses.fields(Phase)]
    for key in entry:
        if key not in known:
            raise ConfigError(
                f"strategy.phases[{number}] has no key '{key}' (it has: {', '.join(known)}).{nearest(key, known)}"
            )
    place = f"strategy.phases[{number}]"
    phase = Phase(**{key: converted(f"{place}.{key}", entry, key, hints(Phase)[key], None) for key in entry})
    for key, choices in CHOICES.items():
        value = getattr(phase, key)
        if value is not None and value not in choices:
            raise ConfigError(
                f"strategy.phases[{number}].{key}={value} is not one of "
                f"{', '.join(choices)}.{nearest(str(value), choices)}"
            )
    if phase.features == "cached" and phase.train in ("all", "bias_norm"):
        raise ConfigError(
            f"strategy.phases[{number}]: features can be cached only of layers that stand still, and with train: "
            f"{phase.train} those of all depths move. Use features: none."
        )
    _check_numbers(phase, number)
    return phase


def _check_numbers(phase: Phase, number: int) -> None:
    """Check that the numbers of a phase are in their ranges."""
    checks: Sequence[tuple[str, bool, str]] = (
        ("epochs", phase.epochs >= 1, "1 or more"),
        ("fraction", 0 < phase.fraction <= 1, "above 0 and at most 1"),
        ("layer_decay", 0 < phase.layer_decay <= 1, "above 0 and at most 1"),
        ("head_lr", phase.head_lr > 0, "above 0"),
        ("lr", phase.lr is None or phase.lr > 0, "above 0"),
        ("warmup", phase.warmup is None or 0 <= phase.warmup < 1, "from 0 to below 1"),
    )
    for key, fine, expected in checks:
        if not fine:
            raise ConfigError(f"strategy.phases[{number}].{key}={getattr(phase, key)} must be {expected}.")


def check_adapters(name: str, phases: Sequence[Phase], adapter: AdapterSpec | None) -> None:
    """Check that adapters are there exactly where a phase moves them."""
    moved = any(phase.train == "adapters" for phase in phases)
    if moved and adapter is None:
        raise ConfigError(f"strategy={name} moves adapters but has none. Set strategy.adapter (rank, alpha, targets).")
    if adapter is not None and not moved:
        raise ConfigError(
            f"strategy={name} has adapters that no phase moves. Add a phase with train: adapters, or set "
            "strategy.adapter=null."
        )


def choose_phase(strategy: Strategy, name: str | None) -> Phase:
    """Return the phase of that name, or the last one, which is the longest as a rule.

    Raises:
        ConfigError: The strategy has no such phase.
    """
    names = [phase.name for phase in strategy.phases]
    if name is not None and name not in names:
        raise ConfigError(f"phase={name} is not a phase of {strategy.name} ({', '.join(names)}).{nearest(name, names)}")
    return strategy.phases[-1 if name is None else names.index(name)]
