"""The verb explain writes maps and neighbours of the images that are named; evaluations keep maps of their own."""

import json
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from command import finetune
from PIL import Image

from finetune.explain.store import load_maps
from finetune.runs import Run

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
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def explain(folder: Path, *arguments: str) -> "CompletedProcess[str]":
    return finetune("explain", "run=mine", "cache.dir=kept", *arguments, folder=folder)


def test_each_image_has_an_overlay_at_its_own_size_and_its_neighbours(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    new = tmp_path / "new"
    for folder, form in (("a", "png"), ("a", "bmp"), ("b", "png")):
        (new / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 50), "red").save(new / folder / f"one.{form}")
    done = explain(trained, f"input={new}", f"output={out}", "neighbours=3")
    assert done.returncode == 0, done.stderr
    overlays = sorted(out.glob("*.jpg"))
    assert len(overlays) == 3  # two of the images differ by their ending alone
    assert all(Image.open(path).size == (90, 50) for path in overlays)
    page = (out / "explain.html").read_text()
    assert page.count("Most alike in training") >= 3
    assert page.count("similarity") == 9


def test_an_image_of_training_is_not_its_own_neighbour(trained: Path, tmp_path: Path) -> None:
    frame = Run.open(trained / "mine").table_file
    import pyarrow.parquet as pq

    rows = pq.read_table(frame).to_pylist()
    name = next(row["id"] for row in rows if row["split"] == "train")
    done = explain(trained, f"ids={name}", "split=train", f"output={tmp_path / 'out'}", "neighbours=30")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "explain.html").read_text()
    assert page.count("similarity") == sum(row["split"] == "train" for row in rows) - 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Name what is explained"),
        (("ids=[]",), "Name what is explained"),
        (("input=photos", "ids=[red/00.png]"), "Name what is explained"),
        (("ids=red/zero.png",), "'red/zero.png' is no image of the run's test split"),
        (("input=photos", "target=rad"), "target=rad is not a class of the run"),
        (("input=photos", "method=rollout"), "no attention to roll out"),
        (("input=photos", "output=mine/run.json"), "output=mine/run.json is a file"),
        (("input=broken",), "broken/1.png"),
    ],
)
def test_what_cannot_be_explained_is_said_in_a_line_and_nothing_is_written(
    place: Path, arguments: tuple[str, ...], said: str
) -> None:
    (place / "broken").mkdir()
    (place / "broken" / "1.png").write_bytes(b"no image")
    done = explain(place, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "explain").exists()


def test_training_images_that_are_gone_leave_the_maps(trained: Path, tmp_path: Path) -> None:
    kept = (trained / "photos").rename(trained / "elsewhere")
    try:
        done = explain(trained, f"input={kept / 'red'}", f"output={tmp_path / 'out'}")
    finally:
        kept.rename(trained / "photos")
    assert done.returncode == 0, done.stderr
    assert "Nearest training images are left out" in done.stderr
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 12
    assert "Most alike" not in (tmp_path / "out" / "explain.html").read_text()


def test_a_method_that_the_network_has_not_ends_training_before_it_begins(trained: Path) -> None:
    done = finetune(*QUICK, "hydra.run.dir=other", "explain.method=rollout", folder=trained)
    assert done.returncode == 2
    assert "no attention to roll out" in done.stderr
    assert not (trained / "other" / "run.json").exists()


def test_an_evaluation_of_other_images_has_maps_of_its_own(place: Path) -> None:
    photos(place / "others", 1)  # other pixels under the same names
    done = finetune("evaluate", "run=mine", "data.root=others", "bootstrap=0", folder=place)
    assert done.returncode == 0, done.stderr
    run = Run.open(place / "mine")
    (folder,) = (run.path / "evaluations").iterdir()
    own, others = load_maps(run.path), load_maps(folder)
    assert own is not None and others is not None
    assert json.loads((folder / "evaluation.json").read_text())["images"] == "other"
    shared = own[0].keys() & others[0].keys()
    assert all(not np.array_equal(own[0][name], others[0][name]) for name in shared)
    assert "Maps by gradcam" in (folder / "report.html").read_text()
