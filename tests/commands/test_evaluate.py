"""evaluate and predict need nothing but a run's folder and images, never overwrite, and say what they did."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from configured import command_config, composed, settings_for
from hydra import compose, initialize_config_dir
from PIL import Image

from finetune.commands.evaluate import evaluate
from finetune.commands.predict import predict
from finetune.config.compose import conf_dir, register
from finetune.config.settings.training_groups import Augment
from finetune.data.datamodule import ImageData
from finetune.data.image_stores import FileStore
from finetune.data.sources import csv, folder
from finetune.data.splits import make_splits
from finetune.data.transforms import InputSpec, eval_transform
from finetune.data.verification import verify_images
from finetune.errors import ConfigError, DataError
from finetune.evaluation.bootstrap import metrics_document
from finetune.evaluation.image_files import ImageFiles
from finetune.evaluation.metrics import compute_metrics
from finetune.evaluation.predictions import Predictions, to_probabilities
from finetune.models.bundle import load_bundle, save_bundle
from finetune.models.heads.modules import HeadSpec
from finetune.models.network import build_network
from finetune.runs.run import Run, write_json
from finetune.uncertainty.scaling import Scaling

torch.set_num_threads(1)
LABELS = ("ants", "bees", "wasps")


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


def write_folders(root, *, num=6, seed=0, labels=LABELS, splits=("",)):
    for s, split in enumerate(splits):
        for k, label in enumerate(labels):
            for i in range(num):
                write_image(root / split / label / f"{i}.png", seed + 1000 * s + 100 * k + i)
    return root


def make_run(path, table, source, *, seed=0):
    """A run folder as training leaves it, made of real parts."""
    whole = dict(composed("train").document)
    data = {**whole["data"], "source": source, "unreadable": "error", "eval_batch_size": 4, "workers": 0}
    data |= {key: source[key] for key in ("root", "path") if key in source}
    config = {**whole, "seed": 3, "data": data, "explain": {"images": 0, "method": "auto"}}
    run = Run.create(path, config=config, command=["finetune"], seed=3)
    table = make_splits(verify_images(table, "error"), val=0.2, test=0.34, seed=0, group=None)
    table.save(run.table_file)
    torch.manual_seed(seed)
    network = build_network(
        "test_resnet", num_classes=table.num_classes, weights="none", head=HeadSpec("linear", 8, 0.0), image_size=32
    )
    torch.nn.init.normal_(network.head.get_parameter(next(n for n, _ in network.head.named_parameters())), std=3)
    save_bundle(network, table.labels, table.task, run.model_dir)
    predictions = {split: direct_predictions(run, table, split) for split in ("val", "test")}
    for split, found in predictions.items():
        found.save(run.predictions_file(split))
    write_json(run.metrics_file, metrics_document(predictions, resamples=20, seed=3))
    run.update(status="finished")
    return run


def direct_logits(run, paths):
    """What the stored model says of image files, one at a time and without our loaders."""
    network = load_bundle(run.model_dir).network
    transform = eval_transform(network.spec)
    with torch.no_grad():
        return np.concatenate([network(transform(Image.open(path).convert("RGB"))[None]).numpy() for path in paths])


def direct_predictions(run, table, split):
    rows = table.rows(split)
    return Predictions.from_logits(table, rows, direct_logits(run, table.frame["path"].iloc[rows]))


@pytest.fixture
def run(tmp_path):
    root = write_folders(tmp_path / "photos")
    source = {"_target_": "finetune.data.sources.folder", "root": str(root)}
    return make_run(tmp_path / "runs" / "ants" / "first", folder(str(root)), source)


@pytest.fixture
def multilabel_run(tmp_path):
    table = tmp_path / "labels.csv"
    lines = ["path,label"]
    for i in range(18):
        write_image(tmp_path / f"{i}.png", i)
        lines.append(f"{i}.png,{['red|blue', 'red', 'blue|green', '', 'green'][i % 5]}")
    table.write_text("\n".join(lines))
    source = {"_target_": "finetune.data.sources.csv", "path": str(table), "label_separator": "|"}
    return make_run(tmp_path / "runs" / "colours" / "first", csv(str(table), label_separator="|"), source)


def evaluate_config(stored, **changes):
    base = {"run": str(stored.path), "runs": str(stored.path.parent.parent), "bootstrap": 20, "workers": 0}
    return command_config("evaluate", **{**base, **changes})


def predict_config(stored, source, **changes):
    base = {"run": str(stored.path), "input": str(source), "batch_size": 4, "workers": 0}
    return command_config("predict", **{**base, **changes})


def evaluation_of(run):
    (found,) = (run.path / "evaluations").iterdir()
    return found, json.loads((found / "metrics.json").read_text()), json.loads((found / "evaluation.json").read_text())


def files_of(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def test_robustness_is_scored_written_printed_and_told_on_the_page(run, capsys):
    evaluate(evaluate_config(run, robustness=True, corruptions=["jpeg", "contrast"], severities=[5]))
    found, metrics, facts = evaluation_of(run)
    document = metrics["robustness"]
    assert document["passes"] == 3 and document["split"] == "test" and document["seed"] == 3
    assert document["clean"]["value"] == pytest.approx(metrics["test"]["accuracy"]["value"])
    assert set(document["corruptions"]) == {"jpeg", "contrast"}
    said = capsys.readouterr().out
    assert f"Robustness: 3 passes over {document['n']} images" in said and "severity 5" in said
    assert "Over all corruptions the accuracy is" in said
    page = (found / "report.html").read_text()
    assert "Robustness to corruptions" in page and "What costs most is" in page
    assert "in severity 5" in page and all(f"<figcaption>{name}" in page for name in ("clean", "JPEG", "contrast"))
    with pytest.raises(ConfigError, match="Did you mean 'jpeg'"):
        evaluate(evaluate_config(run, robustness=True, corruptions=["jpg"]))
    shutil.rmtree(run.config["data"]["root"])
    with pytest.raises(DataError, match="images cannot be found"):
        evaluate(evaluate_config(run, robustness=True, severities=[5]))


def test_robustness_of_several_labels_counts_each(multilabel_run, capsys):
    evaluate(evaluate_config(multilabel_run, robustness=True, corruptions=["contrast"], severities=[1], report=False))
    metrics = evaluation_of(multilabel_run)[1]
    assert metrics["robustness"]["clean"]["value"] == pytest.approx(metrics["test"]["accuracy"]["value"])


def test_evaluation_of_a_stored_run_repeats_its_metrics_and_predictions(run, capsys):
    evaluate(evaluate_config(run))
    found, metrics, facts = evaluation_of(run)
    stored = json.loads(run.metrics_file.read_text())["test"]
    assert metrics["test"].keys() == stored.keys()
    for name, entry in stored.items():
        assert metrics["test"][name]["value"] == pytest.approx(entry["value"], abs=1e-5)
    again, before = (
        Predictions.load(found / "predictions" / "test.parquet"),
        Predictions.load(run.predictions_file("test")),
    )
    np.testing.assert_array_equal(again.ids, before.ids)
    np.testing.assert_allclose(again.probabilities, before.probabilities, atol=1e-5)
    assert (facts["images"], facts["notes"]) == ("same", [])
    assert "+0.0000" in capsys.readouterr().out


def test_evaluation_changes_nothing_that_was_stored(run):
    before = files_of(run.path)
    evaluate(evaluate_config(run))
    evaluate(evaluate_config(run))
    after = files_of(run.path)
    assert {path: after[path] for path in before} == before
    assert len(list((run.path / "evaluations").iterdir())) == 2


def test_evaluation_finds_the_last_run_and_any_split(run, capsys):
    evaluate(evaluate_config(run, run="last", split="val"))
    found, metrics, _ = evaluation_of(run)
    assert (found / "predictions" / "val.parquet").is_file()
    assert metrics["n"] == {"val": Predictions.load(run.predictions_file("val")).num}


def test_evaluation_of_a_training_split_has_nothing_to_compare_with(run, capsys):
    evaluate(evaluate_config(run, split="train"))
    out = capsys.readouterr().out
    assert "train, n = 8" in out
    assert re.search(r"accuracy +│ +– │", out)


def test_evaluation_works_from_another_folder_than_the_training(run, tmp_path, monkeypatch):
    config = run.config
    config["data"]["source"]["root"] = config["data"]["root"] = "photos"
    run.config_file.write_text(json.dumps(config))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    evaluate(evaluate_config(run))
    assert evaluation_of(run)[2]["images"] == "same"


def test_changed_images_are_refused(run):
    table = pd.read_parquet(run.table_file)
    write_image(Path(table.loc[table["split"] == "test", "path"].iloc[0]), seed=999)
    with pytest.raises(DataError, match=r"1 of the run's \d+ images have changed"):
        evaluate(evaluate_config(run))
    assert not (run.path / "evaluations").exists()


def test_metrics_come_from_stored_predictions_when_images_are_gone_and_it_is_said(run, capsys):
    shutil.rmtree(run.config["data"]["root"])
    evaluate(evaluate_config(run))
    _, metrics, facts = evaluation_of(run)
    assert facts["images"] == "stored predictions"
    out = capsys.readouterr().out
    assert "cannot be found" in out
    assert "the model was not run" in out
    stored = json.loads(run.metrics_file.read_text())["test"]
    assert {name: entry["value"] for name, entry in metrics["test"].items()} == {
        name: entry["value"] for name, entry in stored.items()
    }


def test_one_missing_image_is_not_silently_left_out(run, capsys):
    table = pd.read_parquet(run.table_file)
    Path(table.loc[table["split"] == "test", "path"].iloc[0]).unlink()
    evaluate(evaluate_config(run))
    _, metrics, facts = evaluation_of(run)
    assert "1 of the run's 6 test images are gone" in facts["notes"][0]
    assert metrics["n"]["test"] == 6


def test_other_images_are_scored_in_the_runs_vocabulary(run, tmp_path, capsys):
    other = write_folders(tmp_path / "other", seed=5000, labels=LABELS[1:])
    evaluate(evaluate_config(run, data={"root": str(other)}))
    found, metrics, facts = evaluation_of(run)
    predictions = Predictions.load(found / "predictions" / "test.parquet")
    assert predictions.labels == LABELS
    assert set(predictions.label_names) == {"bees", "wasps"}
    paths = sorted(other.rglob("*.png"))
    expected = to_probabilities(direct_logits(run, paths), "multiclass")
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-5)
    assert metrics["n"]["test"] == 12
    assert metrics["per_class"]["test"][0]["recall"] is None
    assert metrics["test"]["accuracy"]["value"] == pytest.approx(compute_metrics(predictions)["accuracy"])
    assert facts["images"] == "other"
    assert "images differ" in capsys.readouterr().out


def test_typed_overrides_reach_evaluation_and_prediction(run, tmp_path):
    other = write_folders(tmp_path / "other", seed=6000, num=2)
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        evaluate(compose("evaluate", [f"run={run.path}", f"data.root={other}", "bootstrap=10"]))
        predict(compose("predict", [f"run={run.path}", f"input={other}", f"output={tmp_path / 'out.csv'}"]))
    assert evaluation_of(run)[2]["data"] == {"root": str(other)}
    assert len(pd.read_csv(tmp_path / "out.csv")) == 6


def test_other_folder_with_splits_is_scored_on_its_test_split(run, tmp_path):
    other = write_folders(tmp_path / "other", seed=7000, num=2, splits=("train", "test"))
    evaluate(evaluate_config(run, data={"root": str(other)}))
    found, metrics, _ = evaluation_of(run)
    assert metrics["n"]["test"] == 6
    assert all(name.startswith("test/") for name in Predictions.load(found / "predictions" / "test.parquet").ids)


def test_images_that_trained_the_run_are_pointed_out(run, capsys):
    evaluate(evaluate_config(run, data={"root": run.config["data"]["root"]}))
    assert "12 of the 18 images helped to train" in capsys.readouterr().out


def test_copies_of_the_runs_test_images_are_recognised(run, tmp_path, capsys):
    table = pd.read_parquet(run.table_file)
    for path, label in table.loc[table["split"] == "test", ["path", "label"]].itertuples(index=False):
        (tmp_path / "copy" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "copy" / label / f"renamed_{Path(path).name}")
    evaluate(evaluate_config(run, data={"root": str(tmp_path / "copy")}))
    assert evaluation_of(run)[2]["images"] == "same"
    assert "the content of all 6 is the same" in capsys.readouterr().out


def test_a_whole_other_source_can_be_evaluated(run, tmp_path):
    other = write_folders(tmp_path / "other", seed=9000, num=2)
    lines = ["path,label", *(f"{path},{path.parent.name}" for path in sorted(other.rglob("*.png")))]
    (tmp_path / "other.csv").write_text("\n".join(lines))
    source = {"_target_": "finetune.data.sources.csv", "path": str(tmp_path / "other.csv")}
    evaluate(evaluate_config(run, data={"source": source}))
    assert evaluation_of(run)[1]["n"]["test"] == 6


def test_unknown_label_of_other_images_names_the_nearest(run, tmp_path):
    other = write_folders(tmp_path / "other", labels=("ants", "waps"), num=2)
    with pytest.raises(DataError, match=r"'waps'.*Did you mean 'wasps'"):
        evaluate(evaluate_config(run, data={"root": str(other)}))


def test_misspelt_data_setting_split_and_folder_name_the_nearest(run, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.rot.*Did you mean 'root'"):
        evaluate(evaluate_config(run, data={"rot": "x"}))
    with pytest.raises(DataError, match=r"split 'tets'.*Did you mean 'test'"):
        evaluate(evaluate_config(run, split="tets"))
    with pytest.raises(DataError, match="Did you mean 'photos'"):
        evaluate(evaluate_config(run, data={"root": str(tmp_path / "fotos")}))


def test_setting_that_cannot_change_an_evaluation_is_refused(run):
    with pytest.raises(ConfigError, match=r"data\.image_size is not a setting"):
        evaluate(evaluate_config(run, data={"image_size": 64}))
    with pytest.raises(ConfigError, match=r"data\.unreadable is for other images"):
        evaluate(evaluate_config(run, data={"unreadable": "skip"}))


def test_missing_device_and_unknown_precision_are_named(run):
    with pytest.raises(ConfigError, match=r"device=cdua is not there.*Did you mean 'cuda'"):
        evaluate(evaluate_config(run, device="cdua"))
    with pytest.raises(ConfigError, match="precision=half is not known"):
        evaluate(evaluate_config(run, precision="half"))


def test_multilabel_run_is_evaluated_again(multilabel_run):
    evaluate(evaluate_config(multilabel_run))
    _, metrics, _ = evaluation_of(multilabel_run)
    stored = json.loads(multilabel_run.metrics_file.read_text())["test"]
    assert "exact_match" in stored
    for name, entry in stored.items():
        assert metrics["test"][name]["value"] == pytest.approx(entry["value"], abs=1e-5)


def test_single_label_images_do_not_fit_a_multilabel_run(multilabel_run, tmp_path):
    other = write_folders(tmp_path / "other", labels=("red", "blue"), num=2)
    source = {"_target_": "finetune.data.sources.folder", "root": str(other)}
    with pytest.raises(DataError, match="images are multiclass, the run is multilabel"):
        evaluate(evaluate_config(multilabel_run, data={"source": source}))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predictions_of_a_nested_folder_are_the_models(run, tmp_path, ending):
    images = tmp_path / "new"
    for i, name in enumerate(["b.png", "a.jpg", "deep/er/c.png", "d.bmp", "e.png"]):
        write_image(images / name, 300 + i)
    (images / "notes.txt").write_text("no image")
    predict(predict_config(run, images, output=str(tmp_path / f"out.{ending}"), batch_size=2))
    table = pd.read_csv(tmp_path / "out.csv") if ending == "csv" else pd.read_parquet(tmp_path / "out.parquet")
    names = [str(images / name) for name in ("a.jpg", "b.png", "d.bmp", "e.png", "deep/er/c.png")]
    assert list(table["path"]) == names
    probabilities = to_probabilities(direct_logits(run, names), "multiclass")
    assert list(table["predicted"]) == [LABELS[k] for k in probabilities.argmax(axis=1)]
    np.testing.assert_allclose(table["probability"], probabilities.max(axis=1), atol=1e-5)
    ranked = np.sort(probabilities, axis=1)[:, ::-1]
    for rank in range(3):
        np.testing.assert_allclose(table[f"probability_{rank + 1}"], ranked[:, rank], atol=1e-5)
    assert list(table.columns) == ["path", "predicted", "probability"] + [
        name for rank in (1, 2, 3) for name in (f"label_{rank}", f"probability_{rank}")
    ]


def test_one_file_is_predicted_into_the_current_folder_and_nothing_is_overwritten(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "one.png", 1)
    predict(predict_config(run, "one.png", top_k=1))
    assert list(pd.read_csv("predictions.csv")["path"]) == ["one.png"]
    assert "Wrote 1 rows" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"predictions\.csv exists.*output="):
        predict(predict_config(run, "one.png"))


def test_unreadable_file_stops_prediction_and_leaves_no_table(run, tmp_path):
    for i in range(3):
        write_image(tmp_path / "new" / f"{i}.png", i)
    (tmp_path / "new" / "1.png").write_bytes(b"\x89PNG cut")
    with pytest.raises(DataError, match=r"1\.png cannot be read.*unreadable=skip"):
        predict(predict_config(run, tmp_path / "new", output=str(tmp_path / "out.csv"), batch_size=1))
    assert not list(tmp_path.glob("*out.csv*"))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_skipped_files_are_listed_counted_and_never_predicted(run, tmp_path, capsys, ending):
    for i in range(5):
        write_image(tmp_path / "new" / f"{i}.png", i)
    for name in ("1.png", "4.png"):
        (tmp_path / "new" / name).write_bytes(b"")
    out = tmp_path / f"out.{ending}"
    predict(predict_config(run, tmp_path / "new", output=str(out), unreadable="skip", batch_size=4))
    table = pd.read_csv(out) if ending == "csv" else pd.read_parquet(out)
    assert list(table["error"].isna()) == list(table["predicted"].notna()) == [True, False, True, True, False]
    assert "5 rows (2 of them could not be read" in capsys.readouterr().out


def test_workers_do_not_change_the_table(run, tmp_path):
    for i in range(5):
        write_image(tmp_path / "new" / f"{i}.png", i)
    for workers in (0, 2):
        predict(predict_config(run, tmp_path / "new", output=str(tmp_path / f"{workers}.csv"), workers=workers))
    assert (tmp_path / "0.csv").read_text() == (tmp_path / "2.csv").read_text()


def test_multilabel_table_has_a_probability_per_label(multilabel_run, tmp_path):
    write_image(tmp_path / "new" / "0.png", 0)
    predict(predict_config(multilabel_run, tmp_path / "new", output=str(tmp_path / "out.csv")))
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert list(table.columns) == ["path", "predicted", "probability/blue", "probability/green", "probability/red"]
    above = [label for label in ("blue", "green", "red") if table[f"probability/{label}"][0] > 0.5]
    assert table["predicted"][0] == "|".join(above)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "{tmp}/fotos"}, "Did you mean 'photos'"),
        ({"output": "{tmp}/x.cvs"}, r"x\.cvs has an unknown ending.*Did you mean '\.csv'"),
        ({"output": "{tmp}"}, "is a folder"),
        ({"top_k": 0}, "top_k=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"unreadable": "skipp"}, "Did you mean 'skip'"),
        ({"run": "{tmp}/runs/ants/frist"}, "Did you mean 'first'"),
    ],
)
def test_wrong_settings_of_predict_give_one_line_and_exit_code_2(run, tmp_path, changes, message):
    filled = {key: value.format(tmp=tmp_path) if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(ConfigError, match=message) as caught:
        predict(predict_config(run, **{"source": tmp_path / "photos", **filled}))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_folder_without_images_is_an_error(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image under"):
        predict(predict_config(run, tmp_path / "empty", output=str(tmp_path / "x.csv")))


def test_images_of_the_run_are_read_from_its_source_when_they_moved(run, tmp_path):
    shutil.move(run.config["data"]["root"], tmp_path / "moved")
    config = run.config
    config["data"]["source"]["root"] = config["data"]["root"] = str(tmp_path / "moved")
    run.config_file.write_text(json.dumps(config))
    evaluate(evaluate_config(run))
    assert evaluation_of(run)[2]["images"] == "same"


def test_rows_given_in_any_order_make_predictions_in_table_order(run):
    frame = pd.read_parquet(run.table_file)
    table = folder(run.config["data"]["root"])
    table = replace(table, frame=frame, store=FileStore())
    rows = np.array([5, 0, 3])
    logits = direct_logits(run, frame["path"].iloc[rows])
    found = Predictions.from_logits(table, rows, logits)
    assert list(found.ids) == list(frame["id"].iloc[[0, 3, 5]])
    np.testing.assert_allclose(found.probabilities[2], to_probabilities(logits, "multiclass")[0])


@pytest.mark.parametrize("exact", [True, False])
def test_predict_reads_files_as_evaluate_does(tmp_path, exact):
    root = write_folders(tmp_path / "photos")
    table = verify_images(folder(str(root)), "error")
    table = replace(table, frame=table.frame.assign(split="test"))
    spec = replace(tiny_spec(), exact=exact)
    (batch,) = ImageData(table, spec, settings_for(Augment), eval_batch_size=len(table)).test_dataloader()
    files = ImageFiles(table.frame["path"].tolist(), spec)
    assert torch.equal(batch["image"], torch.cat([files[row][1] for row in range(len(files))]))


def test_views_are_those_of_the_image_and_their_probabilities_are_averaged(run, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        write_image(path, 40 + i)
    predict(predict_config(run, tmp_path / "0.png", output=str(tmp_path / "one.csv"), views=3))
    for path in paths[1:]:  # other company and another name change nothing
        path.rename(tmp_path / f"_{path.name}")
    paths[0].rename(tmp_path / "z.png")
    predict(predict_config(run, tmp_path, output=str(tmp_path / "all.csv"), views=3))
    one, all_ = pd.read_csv(tmp_path / "one.csv"), pd.read_csv(tmp_path / "all.csv").set_index("path")
    assert one["probability"][0] == pytest.approx(all_.loc[str(tmp_path / "z.png"), "probability"], abs=1e-6)

    network = load_bundle(run.model_dir).network
    _, seen, _ = ImageFiles([str(tmp_path / "z.png")], network.spec, settings_for(Augment), 3)[0]
    assert len({view.numpy().tobytes() for view in seen}) == 3
    with torch.no_grad():
        logits = network(seen).numpy()
    mean = np.mean([to_probabilities(view[None], "multiclass")[0] for view in logits], axis=0)
    assert one["probability"][0] == pytest.approx(mean.max(), abs=1e-5)


def test_evaluate_scores_in_the_views_that_predict_sees(run, tmp_path):
    evaluate(evaluate_config(run, views=4))
    found, _, facts = evaluation_of(run)
    assert facts["views"] == 4
    predictions = Predictions.load(found / "predictions" / "test.parquet")
    assert np.abs(predictions.probabilities - Predictions.load(run.predictions_file("test")).probabilities).max() > 1e-4
    for path, probabilities in zip(predictions.paths, predictions.probabilities, strict=True):
        predict(predict_config(run, path, output=str(tmp_path / "out.csv"), views=4))
        row = pd.read_csv(tmp_path / "out.csv").iloc[0]
        assert row["probability"] == pytest.approx(probabilities.max(), abs=1e-5)


@pytest.mark.parametrize("scaling", [Scaling("temperature", (0.4,)), Scaling("vector", (2, 0.5, 1), (0.3, -0.3, 0))])
@pytest.mark.parametrize("views", [1, 3])
def test_evaluate_and_predict_calibrate_as_the_model_says(run, tmp_path, scaling, views):
    bundle = load_bundle(run.model_dir)
    evaluate(evaluate_config(run, views=views))
    save_bundle(bundle.network, bundle.labels, bundle.task, run.model_dir, scaling)
    evaluate(evaluate_config(run, views=views))
    plain, scaled = (
        Predictions.load(folder / "predictions" / "test.parquet")
        for folder in sorted((run.path / "evaluations").iterdir())
    )
    logits = np.log(plain.probabilities.astype(float))
    logits -= logits.mean(axis=1, keepdims=True)
    expected = to_probabilities(logits * np.array(scaling.scale) + np.array(scaling.shift), "multiclass")
    np.testing.assert_allclose(scaled.probabilities, expected, atol=1e-5)
    assert np.abs(scaled.probabilities - plain.probabilities).max() > 0.01
    for path, probabilities in zip(scaled.paths[:3], scaled.probabilities, strict=False):
        predict(predict_config(run, path, output=str(tmp_path / "out.csv"), views=views))
        row = pd.read_csv(tmp_path / "out.csv").iloc[0]
        assert row["probability"] == pytest.approx(probabilities.max(), abs=1e-5)


def test_views_of_a_run_without_augmentation_are_refused(run):
    config = run.config
    config["augment"]["enabled"] = False
    run.config_file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="views=2 would take the same image as often"):
        evaluate(evaluate_config(run, views=2))


def tiny_spec():
    return InputSpec(3, 32, 32, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875)
