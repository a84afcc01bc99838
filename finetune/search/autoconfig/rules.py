"""Rules of `recipe=auto` without a time budget: a strategy, views and epochs, each with its reason."""

from collections.abc import Callable
from dataclasses import dataclass

from finetune.search.autoconfig.dataset_facts import DatasetFacts

# fewer training images of the median class leave too few for validation to tell whether fine-tuning helps
_FEW = 10
VIEWS = 4
# training images up to which a head is solved, its strength cross-validated: no epoch of it hangs on a small validation
# split (on 245 photos of 112 pixels held-out loss was 0.187, against 0.219 of the best epoch; 30 parts, four views)
SOLVED = 1000
# images that pass through the network for all views, at most
MOST_PASSES = {True: 20_000, False: 200_000}  # by whether it is a CPU
# training steps of the fine-tuning that are aimed at, and the epochs this may take
_STEPS = 400
EPOCHS = (6, 12)
WITH_PROBE = ("lp_ft", "frozen")


@dataclass(frozen=True)
class RecipeChoice:
    """A setting that was chosen.

    Attributes:
        key: What is set, such as features.views.
        value: As it would be typed.
        reason: Why.
    """

    key: str
    value: str
    reason: str

    @property
    def override(self) -> str:
        """The setting as it would be typed."""
        return f"{self.key}={self.value}"

    def summary_line(self) -> str:
        """Return the line that says what was chosen and why."""
        return f"recipe: {self.override} ({self.reason})"

    def record(self) -> dict[str, str]:
        """Return what run.json holds of it."""
        return {"set": self.override, "because": self.reason}


def apply_rules(
    facts: DatasetFacts, free: Callable[[str], bool], *, strategy: str, augmented: bool
) -> list[RecipeChoice]:
    """Return what suits the images and the machine.

    Args:
        facts: What is known.
        free: Whether nobody has typed a setting, nor a group that it belongs to.
        strategy: The name of the strategy as typed, or the default one.
        augmented: Whether training images are varied, without which all views would be the same.
    """
    found = []
    if free("strategy"):
        found.append(choose_strategy(facts))
        strategy = found[0].value
    if strategy == "lp_ft" and free("strategy") and free("strategy.epochs"):
        least, most = EPOCHS  # of about as many steps, whatever the number of images
        epochs = str(min(most, max(least, round(_STEPS / facts.steps))))
        reason = f"{facts.steps} steps each, between {least} and {most} epochs"
        found.append(RecipeChoice("strategy.epochs", epochs, reason))
    few = facts.task == "multiclass" and facts.train <= SOLVED
    if strategy in WITH_PROBE and few and free("head") and free("loss"):
        # a logistic regression, solved rather than trained
        reason = f"{facts.train} training images: the head's strength by cross-validation"
        found.append(RecipeChoice("head.l2", "cv", reason))
        found.append(RecipeChoice("loss.label_smoothing", "0", "as a logistic regression has none"))
    if free("features.views") and augmented and strategy in WITH_PROBE:
        found.append(choose_views(facts))
    return found


def choose_strategy(facts: DatasetFacts) -> RecipeChoice:
    """Return a probe alone where images are few, else a probe and fine-tuning."""
    if facts.per_class < _FEW:
        reason = f"{facts.per_class:g} training images of the median class are too few to judge fine-tuning by"
        return RecipeChoice("strategy", "frozen", reason)
    reason = f"{facts.per_class:g} training images of the median class; what validation does not confirm is not kept"
    return RecipeChoice("strategy", "lp_ft", reason)


def choose_views(facts: DatasetFacts) -> RecipeChoice:
    """Return as many views of the probe's training images as a pass through the network may cost."""
    most = MOST_PASSES[facts.on_cpu]
    views = next((views for views in (VIEWS, 2) if views * facts.train <= most), 1)
    where = "on a CPU" if facts.on_cpu else "on a GPU"
    return RecipeChoice("features.views", str(views), f"{views * facts.train:,} passes through the network {where}")
