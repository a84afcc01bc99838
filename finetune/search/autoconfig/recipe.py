"""A recipe resolved to settings: once, before a run begins, with a line for each setting and its reason."""

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytorch_lightning.utilities.seed import isolate_rng

from finetune.config.settings.phases import Phase
from finetune.config.settings.roots import TrainSettings
from finetune.data.cache.store import Cache
from finetune.data.sequences.frame_store import sequence_limit
from finetune.data.table import ImageTable
from finetune.errors import ConfigError
from finetune.runs.run import Run
from finetune.runtime.device import accelerator_device
from finetune.search.autoconfig.budget import (
    CROP_SHARE,
    LEAST_EPOCHS,
    PLANNED,
    PROBE_SHARE,
    Pace,
    epochs_that_fit,
    fit_views,
    images_per_second,
    pass_seconds,
    scoring_seconds,
    seconds_of,
)
from finetune.search.autoconfig.crop_mode import choose_crop, is_open
from finetune.search.autoconfig.dataset_facts import DatasetFacts, gather_facts
from finetune.search.autoconfig.rules import RecipeChoice, apply_rules
from finetune.training.build import build_recipe, load_images, load_network
from finetune.training.throughput.throughput import PhaseBenchmark

log = logging.getLogger(__name__)

# the whole configuration as if some overrides had been typed as well
Recompose = Callable[[Sequence[str]], TrainSettings]
# groups whose options are recipes themselves
_WHOLE = ("experiment", "debug")
# batches after the first one by which a pace is measured
BATCHES = 2
_PROBE = Phase("probe", "head", features="cached")


@dataclass(frozen=True)
class Typed:
    """What was typed.

    Attributes:
        keys: Groups and settings, such as strategy or optimizer.lr.
        groups: The option of each group.
    """

    keys: tuple[str, ...]
    groups: Mapping[str, str | None]

    @property
    def whole(self) -> str | None:
        """The experiment or the like that says all, as it is typed; None for none."""
        found = [f"{name}={self.groups[name]}" for name in _WHOLE if self.groups.get(name) not in (None, "null")]
        return found[0] if found else None

    def free(self, key: str) -> bool:
        """Return whether nobody has said anything of a setting, of what it belongs to or of what belongs to it."""
        return self.whole is None and not any(
            typed == key or key.startswith(f"{typed}.") or typed.startswith(f"{key}.") for typed in self.keys
        )


def resolve_recipe(
    settings: TrainSettings, typed: Typed, table: ImageTable, cache: Cache | None, recompose: Recompose
) -> tuple[TrainSettings, list[RecipeChoice]]:
    """Return the configuration with what the recipe chooses, and the choices.

    Args:
        settings: The configuration as it was typed.
        typed: What of it was.
        table: The images, all of them in a split.
        cache: Where features are kept.
        recompose: Returns the configuration with more overrides.

    Raises:
        ConfigError: A time has nothing to be fitted to, or the images are sequences of frames.
    """
    if not is_asked(settings):
        return settings, []
    budget, choices = settings.recipe.budget, by_rules(settings, typed, table)
    crop = is_open(_facts_of(settings, table), settings, typed.free)
    if budget is not None:
        check_budget(settings, typed)
        chosen = recompose(overrides_of(choices))
        choices = _fitted(chosen, choices, typed, table, cache, recompose, seconds_of(budget), crop=crop)
    elif crop:
        choices += _crop_of(settings, table, cache, recompose)
    if not choices:
        log.info("recipe: nothing is chosen, since %s was typed.", typed.whole or "all of it")
    return recompose(overrides_of(choices)), choices


def is_asked(settings: TrainSettings) -> bool:
    """Return whether a recipe is to choose anything.

    Raises:
        ConfigError: A time has nothing to be fitted to.
    """
    name, budget = settings.recipe.name, settings.recipe.budget
    if name == "none" and budget is not None:
        raise ConfigError(f"recipe.budget={budget} needs a recipe that keeps to it. Type recipe=auto as well.")
    return bool(name != "none")


def by_rules(settings: TrainSettings, typed: Typed, table: ImageTable) -> list[RecipeChoice]:
    """Return what is chosen without a clock and without a look at an image.

    Raises:
        ConfigError: The images are sequences of frames.
    """
    if sequence_limit(table) is not None:
        raise ConfigError("recipe=auto knows single images, and these are sequences. Leave it out.")
    strategy, augmented = settings.strategy.name, settings.augment.enabled
    return apply_rules(_facts_of(settings, table), typed.free, strategy=strategy, augmented=augmented)


def _crop_of(
    settings: TrainSettings, table: ImageTable, cache: Cache | None, recompose: Recompose
) -> list[RecipeChoice]:
    """Return the choice of a crop, by a probe that changes nothing of what the run draws."""
    with isolate_rng():
        return choose_crop(table, cache, recompose)


def overrides_of(choices: Sequence[RecipeChoice]) -> list[str]:
    """Return choices as they would be typed."""
    return [choice.override for choice in choices]


def _facts_of(settings: TrainSettings, table: ImageTable) -> DatasetFacts:
    """Return what is known of the images and of the machine."""
    trainer = settings.trainer
    devices = trainer.devices if isinstance(trainer.devices, int) else 1
    batch = settings.data.batch_size * max(1, devices) * trainer.num_nodes * trainer.accumulate
    return gather_facts(table, on_cpu=accelerator_device(trainer.accelerator).type != "cuda", batch_size=batch)


def check_budget(settings: TrainSettings, typed: Typed) -> None:
    """Check that there is something that a time can be fitted to, and a device whose pace is that of the run.

    Raises:
        ConfigError: There is not.
    """
    if typed.whole is not None:
        raise ConfigError(f"recipe.budget cannot be kept to, since {typed.whole} says all. Leave one of them out.")
    if settings.strategy.epochs is None:
        raise ConfigError(
            f"strategy={settings.strategy.name} has no strategy.epochs that could be fitted to recipe.budget. Name "
            "the epochs of its phases so, or leave recipe.budget out."
        )
    trainer = settings.trainer
    if trainer.devices not in (1, "1") or trainer.num_nodes != 1:
        raise ConfigError(
            f"recipe.budget is fitted to one device, and trainer.devices={trainer.devices} "
            f"trainer.num_nodes={trainer.num_nodes} asks for others. Set strategy.epochs instead."
        )


def _fitted(
    settings: TrainSettings, choices: list[RecipeChoice], typed: Typed, table: ImageTable, cache: Cache | None,
    recompose: Recompose, seconds: float, *, crop: bool,
) -> list[RecipeChoice]:  # fmt: skip
    """Return the choices, changed so that they fit into a time: views give way first, then epochs, then fine-tuning.

    Where the crop is open, it is chosen first if a pass over the training images costs little of the time.
    """
    facts = _facts_of(settings, table)
    longer = recompose([*overrides_of(choices), f"strategy.epochs={epochs_of(settings) + 1}"])
    pace = measure_pace(settings, longer, table, facts, cache)
    if crop and facts.train / pace.forward <= CROP_SHARE * seconds:
        seconds -= facts.train / pace.forward
        choices = [*choices, *_crop_of(settings, table, cache, recompose)]
    found = {choice.key: choice for choice in choices}
    asked = settings.features.views
    views = fit_views(facts, pace, PROBE_SHARE * seconds, asked) if "features.views" in found else asked
    candidates, tta_views = len(settings.wise_ft) + 2, settings.tta_views
    needed = pass_seconds(facts, pace, views) + scoring_seconds(facts, pace, candidates, tta_views) + pace.fixed
    epochs = epochs_that_fit(pace, PLANNED * seconds - needed, epochs_of(settings))
    if pace.epochs and typed.free("strategy") and epochs < LEAST_EPOCHS:
        found.pop("strategy.epochs", None)
        reason = f"fewer than {LEAST_EPOCHS} epochs of fine-tuning, {pace.epochs:.3g} s each, fit into {seconds:g} s"
        found["strategy"] = RecipeChoice("strategy", "frozen", reason)
        views = fit_views(facts, pace, PLANNED * seconds, asked) if "features.views" in found else views
        needed = pass_seconds(facts, pace, views)
    elif pace.epochs and typed.free("strategy.epochs"):
        epochs = max(1, epochs)
        found["strategy.epochs"] = RecipeChoice(
            "strategy.epochs", str(epochs), f"{pace.epochs:.3g} s each, within {seconds:g} s"
        )
        needed += epochs * pace.epochs
    if "features.views" in found:
        reason = f"{pace.forward:,.0f} images a second pass through the network"
        found["features.views"] = RecipeChoice("features.views", str(views), reason)
    if needed > seconds:
        log.warning("recipe: about %.3g s are needed, more than the %g s of recipe.budget.", needed, seconds)
    return list(found.values())


def epochs_of(settings: TrainSettings) -> int:
    """Return the epochs of a strategy that a time is fitted to."""
    return int(settings.strategy.epochs or 0)


def measure_pace(
    settings: TrainSettings, longer: TrainSettings, table: ImageTable, facts: DatasetFacts, cache: Cache | None
) -> Pace:
    """Return what this machine does of a configuration per second.

    Args:
        settings: The configuration.
        longer: The same with one more of strategy.epochs, which tells the phases that depend on it.
        table: The images.
        facts: What is known of them.
        cache: Where features are kept.
    """
    with tempfile.TemporaryDirectory() as folder, isolate_rng():  # the run draws what it would draw without a time
        strategy, more = settings.strategy, longer.strategy
        network = load_network(settings, table)
        recipe = build_recipe(settings, table, cache)
        images = load_images(settings, table, network, cache)

        def pace_of(phase: Phase) -> float:
            return images_per_second(
                PhaseBenchmark(network, phase, images, recipe, batches=BATCHES, folder=Path(folder))
            )

        forward = pace_of(_PROBE)
        each, fixed = 0.0, 0.0
        for phase, after in zip(strategy.phases, more.phases, strict=True):
            if phase.backbone_frozen:
                continue
            seconds = facts.train / pace_of(phase) + facts.val / forward
            each += (after.epochs - phase.epochs) * seconds
            fixed += (phase.epochs - (after.epochs - phase.epochs) * epochs_of(settings)) * seconds
    return Pace(forward, each, fixed)


def record_choices(run: Run, choices: Sequence[RecipeChoice]) -> None:
    """Say and note what the recipe has chosen and why; the values are in the configuration."""
    for choice in choices:
        log.info("%s", choice.summary_line())
    if choices:
        run.update(recipe=[choice.record() for choice in choices])
