"""What all tests share: no network, no tracker outside a test's own folder, few threads."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from wandb_backend import Backend

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["WANDB_ERROR_REPORTING"] = "false"
os.environ.pop("WANDB_API_KEY", None)

# a shell that starts the tests in the background has Ctrl-C ignored, which processes that tests start would inherit
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # likewise by nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("same examples each time", derandomize=True, deadline=None)
settings.load_profile("same examples each time")


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> None:
    """Leave cores to the processes that tests start."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nothing be written to the home of whoever runs the tests."""
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    # so that its fonts are not read again
    monkeypatch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield


@pytest.fixture
def logged_out(own_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user without a W&B login, with a home and a folder of their own, and a client that remembers nothing."""
    import wandb

    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_", "NETRC"))]:
        monkeypatch.delenv(name)
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def wandb_server(logged_out: None, monkeypatch: pytest.MonkeyPatch) -> Iterator["Backend"]:
    """A W&B server on the loopback that the user is logged in to; it must have understood all that it was asked."""
    import wandb
    from wandb_server import KEY, listening

    with listening() as backend:
        monkeypatch.setenv("WANDB_BASE_URL", backend.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield backend
        wandb.teardown()
        assert backend.unknown == []
        assert backend.operations["telemetry"] == 0


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 training and 24 test images of three classes."""
    from PIL import Image
    from sklearn.datasets import load_digits

    root: Path = tmp_path_factory.mktemp("photos")
    images, targets = load_digits(return_X_y=True)
    for label in range(3):
        for number, image in enumerate(images[targets == label][:28]):
            folder = root / ("train" if number < 20 else "test") / f"digit {label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image.reshape(8, 8) * 15).astype("uint8")).resize((32, 32)).save(folder / f"{number}.png")
    return root
