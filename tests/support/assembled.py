"""The parts of a run, as the verb train puts them together."""

from typing import Any

import torch
from hydra import compose, initialize_config_dir

from finetune.config.compose import conf_dir, register, to_dict
from finetune.models.network import Network
from finetune.training.build import build_recipe, load_images, load_network, load_table, open_cache
from finetune.training.phases import build_strategy
from finetune.training.policies import resolve_words


def parts_of(*words: str, given: tuple[str, ...] = ()) -> tuple[Any, Network, Any, Any, Any]:
    """Return table, network, strategy, recipe and images of a run.

    Args:
        words: What counts as typed.
        given: What is set beside it.
    """
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = resolve_words(to_dict(compose("train", [*given, *words])), words)
    torch.manual_seed(0)
    table, strategy, cache = load_table(config["data"]), build_strategy(config["strategy"]), open_cache(config["cache"])
    network = load_network(config, strategy, table)
    return table, network, strategy, build_recipe(config, table, cache), load_images(config, table, network, cache)
