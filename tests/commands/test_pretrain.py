"""A pretraining lowers its loss, goes on where it was interrupted, and gives weights that a run begins with."""

import json
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from command import finetune
from configured import settings_for
from PIL import Image
from pytorch_lightning.callbacks import Callback
from tiny import tiny_images, tiny_table

from finetune.config.settings.training_groups import PretrainSettings, Schedule, TrainerSettings
from finetune.data.sources import digits
from finetune.data.sources.unlabelled import unlabelled
from finetune.data.splits import make_splits
from finetune.errors import ConfigError, DataError
from finetune.models.network import build_network
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import CheckpointIO
from finetune.training.optimizers import build_optimizer
from finetune.training.pretraining.autoencoder import MaskedAutoencoder
from finetune.training.pretraining.encoder import freeze_pooling, plain_vit
from finetune.training.pretraining.mae_module import EpochEnd, Pretrainer, UnlabelledImages, mae_parameter_groups
from finetune.training.run_lifecycle import check_command
from finetune.training.schedules import build_scheduler
from finetune.training.trainer import build_trainer

EPOCHS = 4
VIT = ("model=timm", "model.name=test_vit", "data.image_size=32", "trainer=cpu", "logger=none")


class Stop(Callback):
    """Ends a training as a fault would, when an epoch has begun."""

    def __init__(self, epoch: int) -> None:
        """Wait for an epoch, counted from 0."""
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *_) -> None:  # type: ignore[no-untyped-def]
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("stopped")


def pretrained(run: Run, *, stop: int | None = None) -> MaskedAutoencoder:
    """Train a small autoencoder, from where the run stands, and return it."""
    torch.manual_seed(0)
    table = tiny_table(train=40, val=9, test=4)
    network = build_network("test_vit", num_classes=10, weights="none", image_size=32, drop_path_rate=0.1)
    encoder = plain_vit(network.backbone, "test_vit")
    freeze_pooling(encoder)
    model = MaskedAutoencoder(
        encoder, 3, settings_for(PretrainSettings, decoder_width=32, decoder_depth=1, mask_ratio=0.5)
    )
    module = Pretrainer(
        model,
        build_optimizer=lambda moving: build_optimizer(
            "adamw", mae_parameter_groups(model, lr=3e-3, weight_decay=0.05), {}
        ),
        build_scheduler=partial(build_scheduler, schedule=settings_for(Schedule, "cosine", 0.1, 0.0)),
        seed=0,
    )
    history = RunHistory(run.history_file)
    last = run.last_checkpoint if run.last_checkpoint.exists() else None
    if last is not None:
        history.truncate_after(torch.load(last, weights_only=True)["global_step"])
    trainer = build_trainer(
        settings_for(TrainerSettings, accelerator="cpu", devices=1), folder=run.path, logger=False, max_epochs=EPOCHS,
        callbacks=[EpochEnd(run, history, EPOCHS), *([Stop(stop)] if stop is not None else [])],
        plugins=[CheckpointIO()], enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=UnlabelledImages(tiny_images(table, network)), ckpt_path=last, weights_only=True)
    return model


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = (Run.create(tmp_path / name, config={}, command=[], seed=0) for name in ("whole", "parts"))
    expected = pretrained(whole)
    with pytest.raises(RuntimeError, match="stopped"):
        pretrained(parts, stop=2)
    assert len(RunHistory(parts.history_file).read()) == 2
    found = pretrained(parts)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name
    rows = RunHistory(whole.history_file).read()
    assert RunHistory(parts.history_file).read() == rows and len(rows) == EPOCHS
    assert all(rows[-1][name] < rows[0][name] for name in ("train/loss", "val/loss"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A pretraining on unlabelled images at different depths, from given weights."""
    folder = tmp_path_factory.mktemp("pretraining")
    table = digits()
    for row in range(40):
        place = folder / "photos" / ("a/b" if row % 2 else "") / f"{row}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        table.store.read(str(table.frame["path"][row]), 1).save(place)
    torch.manual_seed(5)
    start = timm.create_model("test_vit", num_classes=0).state_dict()
    safetensors.torch.save_file(start, folder / "start.safetensors")
    done = finetune(
        "pretrain", *VIT, "data=unlabelled", "data.root=photos", "model.weights=start.safetensors",
        "pretrain.epochs=2", "pretrain.decoder_width=32", "pretrain.decoder_depth=1", "pretrain.images=2",
        f"cache.dir={folder}/kept", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "40 images without labels" in done.stdout and "weights.safetensors" in done.stdout
    (found,) = Run.all(folder / "pretrained")
    return found


def test_a_pretraining_writes_its_folder(run: Run) -> None:
    assert run.status == "finished" and run.metrics["n"] == {"train": 40}
    rows = RunHistory(run.history_file).read()
    assert [row["epoch"] for row in rows] == [0, 1]
    assert run.metrics["train"]["loss"]["value"] == rows[-1]["train/loss"]
    page = run.report_file.read_text()
    assert page.count("data:image/jpeg") >= 2 and "model.weights=" in page
    found = safetensors.torch.load_file(run.path / "weights.safetensors")
    start = safetensors.torch.load_file(run.path.parents[2] / "start.safetensors")
    assert any(not torch.equal(value, start[name]) for name, value in found.items() if value.shape == start[name].shape)


def test_a_run_begins_with_the_weights(run: Run) -> None:
    folder = run.path.parents[2]
    weights = run.path / "weights.safetensors"
    done = finetune(
        *VIT, f"model.weights={weights}", "strategy=frozen", "strategy.epochs=1", "bootstrap=0", "report=false",
        "explain.images=0", "ood=none", f"cache.dir={folder}/kept", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (trained,) = Run.all(folder / "runs")
    shipped = safetensors.torch.load_file(trained.model_dir / "weights.safetensors")
    for name, value in safetensors.torch.load_file(weights).items():
        assert torch.equal(shipped[f"backbone.{name}"], value), name


def test_a_run_is_continued_by_the_command_that_began_it(run: Run) -> None:
    check_command(run, "pretrain")
    with pytest.raises(ConfigError, match="was begun by finetune pretrain. Type: finetune pretrain resume="):
        check_command(run, "train")


def test_images_without_labels_come_from_folders_and_tables(tmp_path: Path) -> None:
    for name in ("a.png", "deep/er/b.png", ".hidden/c.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / "photos" / name)
    table = unlabelled(root=str(tmp_path / "photos"))
    assert sorted(table.frame["id"]) == ["a.png", "deep/er/b.png"] and len(table.rows("train")) == 2
    (tmp_path / "paths.csv").write_text("file\na.png\ndeep/er/b.png\na.png\n")
    found = unlabelled(root=str(tmp_path / "photos"), path=str(tmp_path / "paths.csv"), path_column="file")
    assert sorted(found.frame["id"]) == ["a.png", "deep/er/b.png"]
    with pytest.raises(DataError, match="no classifier can be trained"):
        make_splits(table, val=0.2, test=0.2, seed=0)
    with pytest.raises(ConfigError, match="Set data.root to a folder"):
        unlabelled()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="There is no image under"):
        unlabelled(root=str(tmp_path / "empty"))


def test_metrics_of_a_pretraining_are_plain_json(run: Run) -> None:
    assert json.loads(run.metrics_file.read_text())["train"]["loss"]["low"] is None


def test_a_finished_pretraining_says_what_it_is_good_for(run: Run) -> None:
    with pytest.raises(ConfigError, match="nothing to resume. Start from its weights with: finetune model.weights="):
        run.check_resumable()
