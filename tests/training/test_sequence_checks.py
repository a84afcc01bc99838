"""A run on sequences of frames is a run like any other: scored, stored, shipped and repeated by sequence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command import finetune
from configured import command_config, settings_for, train_settings
from PIL import Image
from sklearn.datasets import load_digits

from finetune.commands.evaluate import evaluate
from finetune.commands.predict import predict
from finetune.config.settings.data_groups import FoldSettings
from finetune.config.settings.phases import build_strategy
from finetune.config.settings.roots import TrainSettings
from finetune.config.settings.training_groups import ViewSettings
from finetune.data.augmentation.settings import NOT_AUGMENTED
from finetune.data.cache.store import Cache
from finetune.data.folds import crossval_pool, make_folds
from finetune.data.sources import digits, sequences
from finetune.data.table import content_digest, load_saved_table
from finetune.data.transforms import eval_transform
from finetune.ensembles.crossval.in_process import read_table, train_fold
from finetune.errors import ConfigError
from finetune.evaluation.drift.reference import load_reference
from finetune.evaluation.predictions import Predictions, to_probabilities
from finetune.features.extract import FeatureSource
from finetune.models.bundle import load_bundle
from finetune.models.heads.sequence_heads import mean_of
from finetune.runs.run import Run
from finetune.runtime.device import DevicePass
from finetune.training.build import build_recipe, load_images, load_network, load_table
from finetune.training.fit import build_classifier
from finetune.training.head_trainer import HeadTrainer
from finetune.training.resume import ResumePoint
from finetune.training.sequence_checks import check_sequences

SETTINGS = (
    "data=sequences", "head=gru", "head.hidden=16", "strategy=frozen", "strategy.epochs=4", "model=timm",
    "model.name=test_resnet", "model.weights=none", "data.image_size=32", "trainer=cpu", "logger=none",
    "bootstrap=20", "data.splits.val=0.25", "data.splits.test=0.25", "data.frames=5",
)  # fmt: skip
CLIPS = 8


def write_clips(root: Path) -> Path:
    """Write digits that count up, of two to nine frames, and the very same frames counting down."""
    bundled = load_digits()
    pixels = np.rint(bundled.images * (255 / 16)).astype(np.uint8)
    for clip in range(CLIPS):
        rows = [int(np.flatnonzero(bundled.target == digit)[clip]) for digit in range(clip + 2)]
        for name, order in (("up", rows), ("down", rows[::-1])):
            place = root / name / f"clip{clip}"
            place.mkdir(parents=True)
            for number, row in enumerate(order):
                Image.fromarray(pixels[row]).save(place / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, a finished run on them, and what it has said."""
    place = tmp_path_factory.mktemp("sequences")
    write_clips(place / "clips")
    keep = (f"data.root={place / 'clips'}", f"cache.dir={place / 'kept'}", "hydra.run.dir=runs/one")
    done = finetune(*SETTINGS, *keep, folder=place)
    assert done.returncode == 0, done.stderr
    (place / "said.txt").write_text(done.stdout)
    return place


def run_of(place: Path) -> Run:
    return Run(place / "runs" / "one")


def stored(place: Path) -> Predictions:
    return Predictions.load(run_of(place).predictions_file("test"))


def test_scores_and_predictions_are_of_sequences(place: Path) -> None:
    run, predictions = run_of(place), stored(place)
    frame, _ = load_saved_table(run.table_file)
    assert len(frame) == 2 * CLIPS
    assert sorted(predictions.ids) == sorted(frame["id"][frame["split"] == "test"])
    assert run.metrics["n"]["test"] == len(predictions.ids) == 4
    assert set(run.metrics["test"]["accuracy"]) >= {"value", "low", "high"}
    assert "test 4 sequences of up to 5 frames" in " ".join((place / "said.txt").read_text().split())
    page = run.report_file.read_text()
    assert all(str(name) in page for name in predictions.ids)
    assert page.count("data:image/jpeg") >= len(predictions.ids)


def test_each_frame_passes_the_backbone_once_whichever_sequences_it_is_in(place: Path) -> None:
    (space,) = Cache(place / "kept", 10**9).infos()
    looked_at = {path for clip in range(CLIPS) for path in frames_looked_at(place, f"up/clip{clip}")}
    looked_at |= {path for clip in range(CLIPS) for path in frames_looked_at(place, f"down/clip{clip}")}
    assert space.entries == len({content_digest(path.read_bytes()) for path in looked_at}) < len(looked_at)


def frames_looked_at(place: Path, name: str) -> list[Path]:
    """Return the middles of five equal stretches of a clip, or all frames of a shorter one."""
    number = len(list((place / "clips" / name).iterdir()))
    chosen = range(number) if number <= 5 else [int((i + 0.5) * number / 5) for i in range(5)]
    return [place / "clips" / name / f"{each}.png" for each in chosen]


def test_the_shipped_model_says_of_frames_what_the_run_has_stored(place: Path) -> None:
    run, predictions = run_of(place), stored(place)
    bundle = load_bundle(run.model_dir)
    assert bundle.network.options["head"]["kind"] == "gru"
    assert bundle.network.frames == 5
    transform = eval_transform(bundle.network.spec)
    for name, expected in zip(predictions.ids, predictions.probabilities, strict=True):
        images = [Image.open(path).convert("RGB") for path in frames_looked_at(place, str(name))]
        with torch.no_grad():
            logits = bundle.network(torch.stack([transform(image) for image in images]), torch.tensor([len(images)]))
        found = to_probabilities(bundle.calibrate(logits.numpy()), "multiclass")[0]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_evaluate_scores_the_same_sequences_alike(place: Path) -> None:
    run = run_of(place)
    base = {"run": str(run.path), "bootstrap": 20, "workers": 0, "report": False}
    evaluate(command_config("evaluate", **base))
    (folder,) = (run.path / "evaluations").iterdir()
    facts = json.loads((folder / "evaluation.json").read_text())
    found, before = Predictions.load(folder / "predictions" / "test.parquet"), stored(place)
    assert facts["images"] == "same"
    assert facts["drift"]["n"]["reference"] == 4
    assert found.ids.tolist() == before.ids.tolist()
    np.testing.assert_allclose(found.probabilities, before.probabilities, atol=1e-4)


def predicted(place: Path, source: Path, output: Path, **changes: Any) -> pd.DataFrame:
    base = {"run": str(run_of(place).path), "input": str(source), "output": str(output), "workers": 0, "batch_size": 12}
    predict(command_config("predict", **{**base, **changes}))
    return pd.read_csv(output)


def test_predict_takes_a_folder_of_sequences_or_a_single_one(place: Path, tmp_path: Path) -> None:
    table = predicted(place, place / "clips", tmp_path / "all.csv")
    assert len(table) == 2 * CLIPS
    said = dict(zip(table["path"], table["predicted"], strict=True))
    before = stored(place)
    for name, label in zip(before.ids, before.predicted_names, strict=True):
        assert said[str(place / "clips" / name)] == label
    single = predicted(place, place / "clips" / "up" / "clip3", tmp_path / "one.csv")
    assert single["path"].tolist() == [str(place / "clips" / "up" / "clip3")]


def test_predict_says_of_a_sequence_that_a_frame_cannot_be_read(place: Path, tmp_path: Path) -> None:
    for clip in ("a", "b"):
        (tmp_path / "new" / clip).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "new" / clip / "0.png")
    (tmp_path / "new" / "b" / "1.png").write_bytes(b"")
    table = predicted(place, tmp_path / "new", tmp_path / "new.csv", unreadable="skip")
    assert table["predicted"].isna().tolist() == [False, True]
    assert table["error"][1].startswith("its frame 1.png: empty")
    with pytest.raises(ConfigError, match="is a file, and this run reads sequences"):
        predicted(place, tmp_path / "new" / "a" / "0.png", tmp_path / "x.csv")
    with pytest.raises(ConfigError, match="views=2 is for single images"):
        predicted(place, tmp_path / "new", tmp_path / "x.csv", views=2)


def settings_of(place: Path, *overrides: str) -> TrainSettings:
    return train_settings(given=(*SETTINGS, f"data.root={place / 'clips'}", "cache.enabled=false", *overrides))


def test_images_of_frames_and_their_cached_features_give_the_same_answers(place: Path) -> None:
    settings = settings_of(place, "strategy=full")
    torch.manual_seed(0)
    table, strategy = load_table(settings.data), settings.strategy
    network, recipe = load_network(settings, table), build_recipe(settings, table)
    torch.nn.init.normal_(network.head[-1].weight)  # type: ignore[arg-type]
    images = load_images(settings, table, network)
    source = FeatureSource(network.eval(), images, recipe.features, DevicePass(torch.device("cpu")))
    assert source.sequences is images
    features = source.features(table.rows("train"))
    classifier = build_classifier(network, strategy.phases[0], recipe, 0, ResumePoint()).eval()
    with torch.no_grad():
        for batch in images.loader("train", augmented=False):
            taken = features.take(batch["row"].numpy())
            assert torch.allclose(classifier(batch), classifier({"features": taken}), atol=1e-4)
            means = [part.mean(0) for part in torch.split(network.backbone(batch["image"]), batch["frames"].tolist())]
            assert torch.allclose(mean_of(taken), torch.stack(means), atol=1e-4)
    (batch, *_) = images.loader("train", augmented=True)
    classifier.train().training_loss(batch).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in network.parameters())


def test_the_reference_of_drift_is_the_mean_of_frames(place: Path) -> None:
    run = run_of(place)
    reference, bundle = load_reference(run), load_bundle(run.model_dir)
    frame, _ = load_saved_table(run.table_file)
    assert reference is not None and len(reference.rows) == 4
    transform = eval_transform(bundle.network.spec)
    for row, found in zip(reference.rows, reference.features, strict=True):
        images = [Image.open(path).convert("RGB") for path in frames_looked_at(place, frame["id"][row])]
        with torch.no_grad():
            expected = bundle.network.backbone(torch.stack([transform(image) for image in images])).mean(0).numpy()
        np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())


def test_folds_in_one_process_hold_sequences_out_and_say_of_them_what_their_network_says(place: Path) -> None:
    settings = settings_of(place, "strategy.epochs=1", "calibration=none", "data.splits.test=0")
    table = read_table(settings)
    heads = HeadTrainer(settings, crossval_pool(table))
    fold = make_folds(heads.table, settings_for(FoldSettings, folds=2))[1]
    found = train_fold(heads, 1, fold)
    held = heads.table.frame["id"][fold.held].tolist()
    assert sorted(found.predictions.ids) == sorted(held)
    transform, network = eval_transform(found.member.network.spec), found.member.network
    assert network.frames == 5
    for name, expected in zip(found.predictions.ids, found.predictions.probabilities, strict=True):
        images = [Image.open(path).convert("RGB") for path in frames_looked_at(place, str(name))]
        with torch.no_grad():
            logits = network(torch.stack([transform(image) for image in images]), torch.tensor([len(images)]))
        np.testing.assert_allclose(logits.softmax(1)[0], expected, atol=1e-4)


PARTIAL = {"name": "partial", "train": "last", "features": "cached"}
FULL = {"name": "full", "train": "all"}


@pytest.mark.parametrize(
    ("changes", "phase", "said"),
    [
        (
            {"features": ViewSettings(views=2, dtype="float32")},
            FULL,
            "features.views=2 is for single images: sequences have one view",
        ),
        ({"tta_views": 2}, FULL, "tta_views=2 is for single images"),
        ({}, PARTIAL, "Set strategy.features=none, or use strategy=frozen"),
        ({"label_noise": "mixup"}, FULL, "label_noise=mixup mixes single images"),
        ({"imbalance": "augment_minority"}, FULL, "Use imbalance=oversample"),
        ({"augment": replace(NOT_AUGMENTED, enabled=True, mixup=0.2)}, FULL, "augment.mixup mixes single images"),
    ],
)
def test_what_is_for_single_images_is_refused_before_training(
    place: Path, changes: dict[str, Any], phase: dict[str, Any], said: str
) -> None:
    table = sequences(str(place / "clips"), frames=5)
    plain = replace(settings_for(TrainSettings), strategy=build_strategy({"name": "mine", "phases": [FULL]}))
    changed = replace(plain, strategy=build_strategy({"name": "mine", "phases": [phase]}), **changes)
    with pytest.raises(ConfigError, match=said):
        check_sequences(changed, table)
    check_sequences(changed, digits())
    check_sequences(plain, table)
