"""The command explain writes maps and neighbours of the images that are named; evaluations keep maps of their own."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command import finetune
from hydra import compose, initialize_config_dir
from PIL import Image

from finetune.commands.evaluate import evaluate
from finetune.commands.explain import explain
from finetune.config.compose import conf_dir, register
from finetune.data.transforms import eval_transform
from finetune.errors import ConfigError, DataError, FinetuneError
from finetune.evaluation.explain.attribution_store import load_maps
from finetune.evaluation.explain.attributions import attribute as explain_images
from finetune.evaluation.predictions import Predictions
from finetune.models.bundle import load_bundle
from finetune.runs.run import Run

QUICK = (
    "data=folder", "data.root=photos", "data.image_size=64", "model=timm", "model.name=test_efficientnet",
    "model.weights=none", "strategy=frozen", "strategy.epochs=1", "trainer=cpu", "logger=none", "bootstrap=0",
    "cache.dir=kept", "explain.images=2",
)  # fmt: skip


def photos(folder: Path, seed: int) -> None:
    """Write 24 images of two colours, wider than high, with grain."""
    generator = np.random.default_rng(seed)
    for number in range(24):
        values = generator.integers(0, 120, (48, 72, 3), dtype=np.uint8)
        values[..., number % 2 * 2] += 120
        path = folder / ("red", "blue")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a run on them, mine."""
    folder = tmp_path_factory.mktemp("explain")
    photos(folder / "photos", 0)
    done = finetune(*QUICK, "hydra.run.dir=mine", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, as the one in which commands are typed."""
    monkeypatch.chdir(trained)
    return trained


def typed(command: str, *arguments: str) -> None:
    """Do what the command does with these arguments, in this process."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(command, ["run=mine", *arguments])
    {"explain": explain, "evaluate": evaluate}[command](config)


def explained(output: Path, *arguments: str) -> str:
    """Return the page that explain writes into a folder."""
    typed("explain", f"output={output}", "cache.dir=kept", "device=cpu", *arguments)
    return (output / "explain.html").read_text()


def test_each_image_has_an_overlay_at_its_own_size_and_its_neighbours(here: Path, tmp_path: Path) -> None:
    new, out = tmp_path / "new", tmp_path / "out"
    for folder, form in (("a", "png"), ("a", "bmp"), ("b", "png")):
        (new / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 50), "red").save(new / folder / f"one.{form}")
    page = explained(out, f"input={new}", "neighbours=3")
    overlays = sorted(out.glob("*.jpg"))
    assert len(overlays) == 3  # two of the images differ by their ending alone
    assert all(Image.open(path).size == (90, 50) for path in overlays)
    assert page.count("Most alike in training") >= 3
    assert page.count("similarity") == 9


def test_an_image_of_training_is_not_its_own_neighbour(here: Path, tmp_path: Path) -> None:
    rows = pq.read_table(Run.open(here / "mine").table_file).to_pylist()
    training = [row for row in rows if row["split"] == "train"]
    name = training[0]["id"]
    by_id = explained(tmp_path / "id", f"ids={name}", "split=train", "neighbours=30")  # not a list of its letters
    by_path = explained(tmp_path / "path", f"input=photos/../photos/{name}", "neighbours=30")
    for page in (by_id, by_path):
        assert page.count("similarity") == len(training) - 1


@pytest.mark.parametrize(
    ("arguments", "said", "error"),
    [
        ((), "Name what is explained", ConfigError),
        (("ids=[]",), "Name what is explained", ConfigError),
        (("input=photos", "ids=[red/00.png]"), "Name what is explained", ConfigError),
        (("ids=0",), "'0' is no image of the run's test split", ConfigError),
        (("ids=red/zero.png",), "'red/zero.png' is no image of the run's test split", ConfigError),
        (("input=photos", "target=rad"), "target=rad is not a class of the run", ConfigError),
        (("input=photos", "method=rollout"), "no attention to roll out", ConfigError),
        (("input=photos", "method=gradcm"), "'gradcam'", ConfigError),
        (("input=photos", "output=mine/run.json"), "mine/run.json is a file", ConfigError),
        (("input=photos", "output=mine/run.json/why"), "mine/run.json is a file", ConfigError),
        (("input=broken",), "broken/1.png", DataError),
    ],
)
def test_what_cannot_be_explained_is_said_in_a_line_and_nothing_is_written(
    here: Path, arguments: tuple[str, ...], said: str, error: type[FinetuneError]
) -> None:
    (here / "broken").mkdir(exist_ok=True)
    (here / "broken" / "1.png").write_bytes(b"no image")
    with pytest.raises(error) as caught:
        typed("explain", "cache.dir=kept", *arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (here / "explain").exists()


def test_training_images_that_are_gone_leave_the_maps(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = (here / "photos").rename(here / "elsewhere")
    try:
        page = explained(tmp_path, f"input={kept / 'red'}")
    finally:
        kept.rename(here / "photos")
    assert "Nearest training images are left out" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*.jpg"))) == 12
    assert "Most alike" not in page


def test_a_method_that_the_network_has_not_ends_training_before_it_begins(trained: Path) -> None:
    done = finetune(*QUICK, "hydra.run.dir=other", "explain.method=rollout", folder=trained)
    assert done.returncode == 2
    assert "no attention to roll out" in done.stderr
    assert not (trained / "other" / "run.json").exists()


def test_an_evaluation_of_other_images_has_maps_of_its_own(here: Path) -> None:
    run = Run.open(here / "mine")
    photos(here / "others", 1)  # other pixels under the same names
    test = {row["id"] for row in pq.read_table(run.table_file).to_pylist() if row["split"] == "test"}
    for path in (here / "others").rglob("*.png"):
        if path.relative_to(here / "others").as_posix() not in test:
            path.unlink()
    before = load_maps(run.path)
    typed("evaluate", "data.root=others", "bootstrap=0", "device=cpu")
    (folder,) = (run.path / "evaluations").iterdir()
    assert json.loads((folder / "evaluation.json").read_text())["images"] == "other"
    assert "Maps by gradcam" in (folder / "report.html").read_text()
    own, others = load_maps(run.path), load_maps(folder)
    assert before is not None and own is not None and others is not None
    shared = own[0].keys() & others[0].keys()
    assert any(np.abs(own[0][name] - others[0][name]).max() > 0.1 for name in shared)
    assert all(np.array_equal(own[0][name], found) for name, found in before[0].items())
    network = load_bundle(run.model_dir).network
    predictions = Predictions.load(folder / "predictions" / "test.parquet")
    for name, found in others[0].items():
        row = predictions.ids.tolist().index(name)
        image = eval_transform(network.spec)(Image.open(here / "others" / name))
        target = torch.tensor([predictions.probabilities[row].argmax()])
        (expected,) = explain_images(network, image[None], target, "gradcam")
        np.testing.assert_allclose(found, expected, atol=2e-3)  # kept in 16 bits
