"""Configuration: where conf/ is, which keys it may have, and how it becomes a plain dictionary."""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finetune.config.quoting import unquote_value
from finetune.config.schemas import pool_schemas, schemas
from finetune.config.settings.checked import Target
from finetune.errors import ConfigError, FinetuneError, nearest

NAME_LENGTH = 60


def conf_dir() -> Path:
    """Return the folder of configurations: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError(f"conf/ is neither in {package} nor beside it. Install the package again.")


def register() -> None:
    """Make the schemas and the resolvers known to Hydra."""
    store = ConfigStore.instance()
    for name, schema in schemas(conf_dir()).items():
        store.store(name=name, node=schema)
    for name, schema in pool_schemas(conf_dir()).items():
        store.store(group="pool", name=name, node=schema)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("option_table", option_table, replace=True)


def option_table() -> str:
    """Return the groups with their options, a line each, for the help; files that others build on are left out."""
    groups = sorted(folder for folder in conf_dir().iterdir() if folder.is_dir() and folder.name != "hydra")
    options = [
        (group.name, sorted(file.stem for file in group.glob("*.yaml") if not file.stem.startswith("_")))
        for group in groups
    ]
    return "\n".join(f"  {name:<11} {', '.join(names)}" for name, names in options)


def run_name(*, _root_: DictConfig) -> str:
    """Return the name of a new run's folder: the given one, or model, strategy and what else was changed."""
    given = _root_.get("name")
    if given:
        return folder_name(str(given))
    hydra = _root_.hydra
    choices, task = hydra.runtime.choices, [override.lstrip("+~") for override in hydra.overrides.task]
    skip = (
        "cache.", "model=", "strategy=", "runs=", "resume=", "name=", "logger", "hydra", "tags=", "group=",
        "trainer.devices", "bootstrap", "recipe=",
    )  # fmt: skip
    changed = [override for override in task if not override.startswith(skip)]
    unknown = choices.get("recipe") == "auto" and not any(override.startswith("strategy=") for override in task)
    named = [str(choices.get(group) or _root_.verb) for group in ("model", "recipe" if unknown else "strategy")]
    return folder_name(*named, *map(_short, changed))


def folder_name(*parts: str) -> str:
    """Return words as the name of a folder; what was made of several is cut with a hash where it is long."""
    return _file_name(parts[0]) if len(parts) == 1 else _cut(_file_name("-".join(parts)))


def _short(override: str) -> str:
    key, _, value = override.lstrip("+~").partition("=")
    value = unquote_value(value)
    if "/" in value:
        value = Path(value).name
    return f"{key.rsplit('.', 1)[-1]}_{value}"


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.,+-]+", "_", text).strip("._") or "run"


def _cut(name: str) -> str:
    if len(name) <= NAME_LENGTH:
        return name
    return f"{name[: NAME_LENGTH - 9].rstrip('-_')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as a plain dictionary with every reference resolved.

    Raises:
        ConfigError: A value is missing or refers to nothing.
    """
    check_missing(config)
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The configuration cannot be resolved: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def check_missing(config: DictConfig) -> None:
    """Check that every value that must be typed has been typed.

    Raises:
        ConfigError: One has not.
    """
    for key in _keys(config):
        place, _, name = key.rpartition(".")
        node = OmegaConf.select(config, place) if place else config
        missing = isinstance(node, DictConfig) and OmegaConf.is_missing(node, name)
        if missing and not OmegaConf.is_interpolation(node, name):
            raise ConfigError(f"{key} is not set. Type {key}=VALUE.")


def instantiate_target(target: Target, **options: Any) -> Any:
    """Return what a target makes of its arguments and the options.

    Raises:
        FinetuneError: As the target raised it.
        ConfigError: The target does not exist, or does not take these keys.
    """
    try:
        return instantiate({"_target_": target.path, **target.arguments}, **options)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, FinetuneError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise cause from None
        text = str(error.__cause__ or error).strip().splitlines()
        raise ConfigError(f"{target.path} cannot be used as configured: {text[0] if text else error}") from error


# what may change when a run is continued: how it is run and recorded, not what is trained
_RESUMABLE = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.threads",
    "trainer.log_every",
    "logger.",
    "data.workers",
    "data.root",
    "data.path",
    "cache.",
    "tags",
    "bootstrap",
    "groups.",
    "resume",
    "runs",
    "trust",
)


def resumed_config(stored: dict[str, Any], overrides: Sequence[str]) -> DictConfig:
    """Return a stored run's configuration with the values that may change when it is continued.

    Args:
        stored: The run's configuration.
        overrides: What was typed beside `resume=`.

    Raises:
        ConfigError: An override would change what is trained, or is not a plain value of an existing key.
    """
    config = OmegaConf.create(stored)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if key in ("resume", "runs"):
            continue
        if override.is_sweep_override() or override.is_add() or override.is_delete() or not key.startswith(_RESUMABLE):
            raise ConfigError(
                f"{override.input_line} cannot be changed when a run is resumed: it would be another run. Start "
                "a new one without resume=, or leave it out."
            )
        if OmegaConf.select(config, key, throw_on_missing=False) is None and key not in _keys(config):
            raise ConfigError(f"The run has no setting '{key}'.{nearest(key, _keys(config))}")
        OmegaConf.update(config, key, override.value())
        if key in ("data.root", "data.path"):
            OmegaConf.update(config, f"data.source.{key.split('.')[1]}", override.value())
    assert isinstance(config, DictConfig)
    return config


def _keys(config: Any, prefix: str = "") -> list[str]:
    keys = []
    for key in config:
        keys.append(f"{prefix}{key}")
        value = config._get_node(key)
        if isinstance(value, DictConfig):
            keys += _keys(value, f"{prefix}{key}.")
    return keys


# keys that code reads by name; any other key of these groups must be referred to, or nothing reads it
READ = {
    "data": (
        "source", "splits", "batch_size", "eval_batch_size", "workers", "unreadable", "balance_groups", "image_size",
        "crop_mode", "horizontal_flip", "smallest_crop", "exact_pixels", "pixel_cache", "device_pixels", "bits",
        "value_range", "max_megapixels",
    ),
    "data.splits": ("val", "test", "seed", "group", "fold"),
    "strategy": ("name", "adapter", "phases"),
    "strategy.adapter": ("rank", "alpha", "targets"),
    "logger.wandb": ("project", "entity", "mode", "checkpoints", "images", "table"),
}  # fmt: skip


def check_read(config: DictConfig) -> None:
    """Check that something reads every key of the groups that are open to new keys.

    Raises:
        ConfigError: A key is misspelt, or belongs to another option of the group.
    """
    if config.get("verb") == "evaluate":  # its data keys are those of the stored run, which checks them
        return
    if "strategy" in config and not isinstance(config.strategy.get("phases"), ListConfig):
        raise ConfigError(
            "strategy.phases must be a list of phases. Write them in a file of conf/strategy, or choose strategy=NAME."
        )
    referred = set(re.findall(r"\$\{([\w.]+)\}", OmegaConf.to_yaml(config, resolve=False)))
    for place, known in READ.items():
        node = OmegaConf.select(config, place, throw_on_missing=False)
        for key in map(str, node) if isinstance(node, DictConfig) else ():
            if key not in known and f"{place}.{key}" not in referred:
                others = [name.rsplit(".", 1)[1] for name in referred if name.startswith(f"{place}.")]
                raise ConfigError(f"Nothing reads the key '{place}.{key}'.{nearest(key, [*known, *others])}")


@lru_cache(maxsize=1)
def command_names() -> tuple[str, ...]:
    """Return the commands: the root configurations; a name with _ is what others build on."""
    return tuple(sorted(file.stem for file in conf_dir().glob("*.yaml") if not file.stem.startswith("_")))
