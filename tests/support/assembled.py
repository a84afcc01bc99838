"""The parts of a run, as the command train puts them together."""

from typing import Any

import torch
from configured import train_settings

from finetune.models.network import Network
from finetune.training.build import build_recipe, load_images, load_network, load_table, open_cache


def parts_of(*words: str, given: tuple[str, ...] = ()) -> tuple[Any, Network, Any, Any, Any]:
    """Return table, network, strategy, recipe and images of a run.

    Args:
        words: What counts as typed.
        given: What is set beside it.
    """
    settings = train_settings(*words, given=given)
    torch.manual_seed(0)
    table, cache = load_table(settings.data), open_cache(settings.cache)
    network = load_network(settings, table)
    images = load_images(settings, table, network, cache)
    return table, network, settings.strategy, build_recipe(settings, table, cache), images
