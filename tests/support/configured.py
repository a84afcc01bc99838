"""Settings for tests: what is given, and the rest as conf/ has it."""

from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from finetune.config.compose import conf_dir, register
from finetune.config.resolve import resolve
from finetune.config.settings.checked import Checked, typed
from finetune.config.settings.root_table import ROOTS
from finetune.config.settings.roots import RootSettings, TrainSettings

S = TypeVar("S", bound=Checked)
# a command that has the group, and options which leave most of it open
_GROUPS = {
    "cv.": "crossval", "pretrain.": "pretrain", "sweep.": "sweep", "rank.": "rank", "audit.": "audit",
    "preview.": "preview", "ensemble.": "ensemble", "compare.": "compare", "operating.": "report", "pool.": "sweep",
}  # fmt: skip
_OPTIONS = {
    **dict.fromkeys(("train", "crossval", "sweep"), ("data=folder", "data.root=photos", "ood=none")),
    "predict": ("input=photos",),
}


@cache
def composed(root: str) -> RootSettings:
    """Return the settings of a command."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolve(compose(root, list(_OPTIONS.get(root, ()))), ROOTS[root])


def settings_for(cls: type[S], *values: Any, **given: Any) -> S:
    """Return settings of a class with some values given, in the order of its fields or by name, and the others as
    they are composed.
    """
    roots = {settings: name for name, settings in ROOTS.items()}
    document: Any = composed(roots[cls] if cls in roots else _GROUPS.get(cls.place, "train")).document
    content = {**document, "document": document} if cls in roots else document
    for name in cls.place.strip(".").split(".") if cls.place else ():
        content = content[name]
    names = [entry.name for entry in fields(cls)]
    return typed(cls, {**content, **dict(zip(names, values, strict=False)), **given})


def train_settings(*words: str, given: tuple[str, ...] = ()) -> TrainSettings:
    """Return the settings of a run.

    Args:
        words: What counts as typed.
        given: What is set beside it.
    """
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolve(compose("train", [*given, *words]), TrainSettings, words)


def command_config(root: str, **changes: Any) -> DictConfig:
    """Return the composed configuration of a command, with some values changed."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(root)
    OmegaConf.set_struct(config, False)  # as with + before a key of an open group
    found = OmegaConf.merge(config, changes)
    assert isinstance(found, DictConfig)
    return found
