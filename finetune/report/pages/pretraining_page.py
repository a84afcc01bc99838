"""The page of a pretraining: weights under timm's names, final losses, and what was rebuilt."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from finetune.data.datamodule import ImageData
from finetune.data.thumbnails import encode_jpeg
from finetune.data.transforms import InputSpec
from finetune.report.html.blocks import Code, Figure, Gallery, ImageBlock, Section, Text
from finetune.report.html.render import render
from finetune.report.html.svg import COLOURS, DASHES, draw_svg
from finetune.runs.history import RunHistory
from finetune.runs.run import Run, replacing, write_atomic, write_json
from finetune.training.pretraining.autoencoder import MaskedAutoencoder, draw_noise, patchify, unpatchify

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WEIGHTS = "weights.safetensors"
GREY = 0.5
_SIDE = 480  # pixels of the longest side of a picture


def write_weights(run: Run, model: MaskedAutoencoder) -> Path:
    """Write the encoder's weights, which `model.weights` takes, and return where they are."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.encoder.state_dict().items()}
    with replacing(run.path / _WEIGHTS) as temporary:
        safetensors.torch.save_file(state, temporary)
    return run.path / _WEIGHTS


def write_metrics(run: Run, images: ImageData) -> dict[str, Any]:
    """Write the losses of the last epoch, and of how many images they are."""
    last = RunHistory(run.history_file).read()[-1]
    splits = [split for split in ("train", "val") if f"{split}/loss" in last]
    document: dict[str, Any] = {split: {"loss": {"value": last[f"{split}/loss"], "low": None, "high": None}}
                                for split in splits}  # fmt: skip
    document["n"] = {split: len(images.table.rows(split)) for split in splits}
    write_json(run.metrics_file, document)
    return document


@torch.no_grad()
def rebuild(model: MaskedAutoencoder, images: Tensor, noise: Tensor, spec: InputSpec) -> list[Image.Image]:
    """Return for each image (B, C, H, W) what it is, what is seen of it, and what is made of that, side by side.

    The decoder knows nothing of a hidden patch's own brightness and contrast, which are taken from the image.
    """
    model.eval()
    _, rebuilt, mask = model(images, noise)
    target = patchify(images.float(), model.patch_size)
    variance, mean = torch.var_mean(target, dim=2, keepdim=True)
    hidden = mask.hidden[:, :, None]
    filled = rebuilt * (variance + 1e-6).sqrt() + mean
    centre, scale = (torch.tensor(value, device=target.device).view(1, -1, 1, 1) for value in (spec.mean, spec.std))
    blank = patchify(((GREY - centre) / scale).expand(len(target), -1, spec.height, spec.width), model.patch_size)
    parts = (target, torch.where(hidden > 0, blank, target), torch.where(hidden > 0, filled, target))
    shown = [pixels(unpatchify(part, model.patch_size, model.grid_size), spec) for part in parts]
    return [Image.fromarray(np.concatenate(row, axis=1)) for row in zip(*shown, strict=True)]


def pixels(images: Tensor, spec: InputSpec) -> np.ndarray:
    """Return normalised images (B, C, H, W) as colours (B, H, W, 3) uint8; other than three channels as their mean."""
    mean, std = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    values = (images * std + mean).clamp(0, 1)
    values = values if values.shape[1] == 3 else values.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return np.asarray((values * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())


def write_pretraining_page(run: Run, model: MaskedAutoencoder, images: ImageData, number: int, seed: int) -> None:
    """Write the page of a pretraining: how the loss fell, what is rebuilt, and how the weights are used."""
    name = run.config["model"]["name"]
    command = f"finetune data=folder data.root=FOLDER model=timm model.name={name} model.weights={run.path / _WEIGHTS}"
    blocks = [Text("A hidden patch is rebuilt with the brightness and contrast that it has in the image.")]
    galleries = [rebuilt_gallery(model, images, number, seed)] if number else []
    sections = [
        Section(
            "loss", "Loss", (loss_figure(RunHistory(run.history_file).read()),), "Of hidden patches; lower is better."
        ),
        Section("rebuilt", "Reconstructions", (*(blocks if galleries else ()), *galleries)),
        Section("use", "How the weights are used", (Code(command),)),
    ]
    write_atomic(run.report_file, render(f"Pretraining {run.path.name}", sections, subtitle=name))


def loss_figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw the loss of each epoch."""
    names = [name for name in ("train/loss", "val/loss") if any(name in row for row in rows)]

    def plot(axes: "Axes") -> None:
        for place, name in enumerate(names):
            known = [row for row in rows if name in row]
            axes.plot([row["epoch"] + 1 for row in known], [row[name] for row in known], DASHES[place],
                      color=COLOURS[place], label=name)  # fmt: skip
        axes.set(xlabel="epoch", ylabel="mean squared error")
        axes.legend()

    said = "; ".join(f"{name} from {rows[0][name]:.4f} to {rows[-1][name]:.4f}" for name in names if name in rows[0])
    return Figure("Loss over time", draw_svg(plot, name="pretraining"), said)


def rebuilt_gallery(model: MaskedAutoencoder, images: ImageData, number: int, seed: int) -> Gallery:
    """Return what is rebuilt of images that were not trained on, where there are any, else of training images."""
    split = "val" if len(images.table.rows("val")) else "train"
    batch = next(iter(images.view_loader(split, 0)))
    rows, shown = batch["row"][:number], batch["image"][:number]
    device = next(model.parameters()).device
    noise = draw_noise(rows.numpy(), model.num_patches, seed=seed, epoch=0).to(device)
    made = rebuild(model, shown.to(device), noise, images.spec)
    ids = images.table.frame["id"].tolist()
    pictures = tuple(
        ImageBlock(
            str(ids[row]), encode_jpeg(picture, _SIDE), description="the image, what is seen of it, what is rebuilt"
        )
        for row, picture in zip(rows.tolist(), made, strict=True)
    )
    what = "validation" if split == "val" else "training"
    return Gallery(f"Images of the {what} split", pictures, "Left the image, then what is seen of it, then the result.")
