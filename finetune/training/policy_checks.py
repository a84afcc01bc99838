"""What of the policies against imbalance, noise and overfitting a head that is solved at once cannot follow."""

from finetune.config.settings.roots import PartsSettings
from finetune.errors import ConfigError
from finetune.models.heads.settings import SolverSettings


def check_solver_policies(solver: SolverSettings, settings: PartsSettings) -> None:
    """Check that a head that is solved can follow the policies; those that it cannot follow concern single steps.

    Raises:
        ConfigError: It cannot.
    """
    imbalance, strengths = settings.imbalance, settings.regularize
    refused = {
        "imbalance=augment_minority": (imbalance == "augment_minority", "Use imbalance=oversample"),
        "imbalance=logit_adjust": (
            imbalance == "logit_adjust" and solver.solver == "nearest_mean", "Use imbalance=class_weights",
        ),
        "label_noise=mixup": (settings.label_noise == "mixup", "Use label_noise=drop_suspects"),
        "regularize.l2_sp": (bool(strengths.l2_sp), "Use head.l2"),
        "regularize.l1": (bool(strengths.l1), "Use head=sparse"),
    }  # fmt: skip
    for word, (found, instead) in refused.items():
        if found:
            raise ConfigError(
                f"{word} has no meaning where the head is solved at once (head.solver={solver.solver}). {instead}, or "
                "let the optimizer train the head (head=linear)."
            )
