"""A recipe for all folds: what was not typed is chosen once, before folds are assigned, and is then typed for each."""

from dataclasses import replace

from omegaconf import OmegaConf

from finetune.config.resolve import resolve
from finetune.config.settings.roots import TrainSettings
from finetune.ensembles.crossval.in_process import read_table
from finetune.errors import ConfigError
from finetune.search.autoconfig.recipe import Typed, by_rules, is_asked, overrides_of
from finetune.search.autoconfig.rules import RecipeChoice
from finetune.search.command_line import Request
from finetune.search.spaces.grammar import parse_all

GROUP = "recipe"


def with_recipe(request: Request) -> tuple[Request, list[RecipeChoice]]:
    """Return a request with what its recipe chooses in place of the recipe, and the choices.

    Raises:
        ConfigError: There is no such recipe, it is to keep to a time, or the images are sequences of frames.
    """
    typed = parse_all([*request.fixed, *request.swept])
    if not any(each.key_or_group.split(".")[0] == GROUP for each in typed):
        return request, []
    cfg = request.compose("train", request.fixed, hydra=True)
    settings = resolve(
        OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]), TrainSettings, request.fixed
    )
    others = tuple(
        str(each.input_line) for each in parse_all(request.fixed) if each.key_or_group.split(".")[0] != GROUP
    )
    if not is_asked(settings):
        return replace(request, fixed=others), []
    budget = settings.recipe.budget
    if budget is not None:
        raise ConfigError(
            f"recipe.budget={budget} is the time of one run, and a cross-validation trains several. Leave it out, or "
            "set strategy.epochs."
        )
    known = Typed(tuple(each.key_or_group for each in typed), dict(cfg.hydra.runtime.choices))
    choices = by_rules(settings, known, read_table(settings))
    return replace(request, fixed=(*others, *overrides_of(choices))), choices
