"""What is typed wrongly is told in one line with what is right; words of other tools get the key that does it."""

import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from finetune.config.compose import conf_dir, register
from finetune.config.error_messages import error_message, known_keys
from finetune.config.foreign_words import FOREIGN_WORDS, typed_for
from finetune.config.resolve import resolve
from finetune.config.settings.root_table import ROOTS
from finetune.errors import ConfigError

register()


def said(*words: str, root: str = "train") -> str:
    """Return the message about a command line."""
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            resolve(compose(root, list(words)), ROOTS[root], words)
    except ConfigError as error:
        return str(error)
    except (HydraException, OmegaConfBaseException) as error:
        return error_message(error, ["--config-name", root, *words])
    raise AssertionError(f"{words} was accepted")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strategy.epochs=five"], "strategy.epochs=five must be a whole number."),
        (["strategy.head_lr=high"], "strategy.head_lr=high must be a number."),
        (["strategy=lora", "strategy.rank=many"], "strategy.adapter.rank=many must be a whole number."),
        (["strategy=partial", "strategy.fraction=half"], "strategy.fraction=half must be a number."),
        (["augment.mixup=yes"], "augment.mixup=yes must be a number."),
        (["optimizer.lr=fast"], "optimizer.lr=fast must be a number."),
        (["report=maybe"], "report=maybe must be true or false."),
        (["seed=one"], "seed=one must be a whole number"),
        (["data.splits.val=lots"], "data.splits.val=lots must be a number."),
        (["data.batch_size=many"], "data.batch_size=many must be a whole number"),
        (["loss.label_smoothing=much"], "loss.label_smoothing=much must be a share, at least 0 and below 1."),
        (["loss=focal", "loss.gamma=-1"], "loss.gamma=-1.0 must be at least 0."),
        (["callbacks=early_stopping", "callbacks.early_stopping.patience=long"],
         "callbacks.early_stopping.patience=long must be a whole number"),
        (["callbacks=ema", "callbacks.ema.decay=2"], "callbacks.ema.decay=2.0 must be at least 0 and at most 1."),
        (["callbacks=swa", "callbacks.swa.start=late"], "callbacks.swa.start=late must be a share"),
        (["data=csv", "data.path=x", "data.label_columns=a"], "data.label_columns=a must be a list, such as"),
        (["data=csv", "data.path=x", "data.val_means=both"], "data.val_means=both is not one of val, test."),
        (["data=sequences", "data.root=x", "data.frames=few"], "data.frames=few must be a whole number"),
        (["data.root=photos"], "There is no setting 'data.root': choose a source: data=folder data.root=photos"),
        (["data.path=labels.csv"], "choose a source: data=csv data.path=labels.csv"),
        (["model=resnet18"], "For another model of timm type: model=timm model.name=resnet18"),
        (["trainer.max_epochs=3"], "There is no setting 'trainer.max_epochs': type strategy.epochs=3"),
        (["batch_size=8"], "type data.batch_size=8"),
        (["imgsz=224"], "type data.image_size=224"),
        (["trainer.gpus=2"], "type trainer.devices=2"),
        (["lr=1e-3"], "type optimizer.lr=1e-3"),
        (["learning_rates=1e-3"], "There is no setting 'learning_rates'"),
        (["data.batch_sise=8"], "Did you mean 'data.batch_size'?"),
        (["augment.mixup=("], "has characters that mean something else. Put the value into quotes"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_one_line(words: list[str], message: str) -> None:
    found = said(*words)
    assert message in found
    assert "\n" not in found


def test_every_word_of_other_tools_is_none_of_ours_and_leads_to_one_that_is() -> None:
    known = set(known_keys(["--config-name", "train"]))
    more = {"recipe", "callbacks.early_stopping.patience", "data.root", "logger.wandb.project", "recipe.budget"}
    words = [word for each in FOREIGN_WORDS.values() for word in each]
    assert len(set(words)) == len(words)
    assert not [word for word in words if word in known - {"optimizer", "schedule"}]
    for typed in FOREIGN_WORDS:
        for key in re.findall(r"([\w.]+)=", typed.split(":")[0]):
            assert key in known | more, typed


def test_a_word_is_known_in_other_spellings() -> None:
    assert typed_for("batch-size", "8") == typed_for("BATCH_SIZE", "8") == "type data.batch_size=8"
    assert typed_for("nonsense", "8") is None
