"""The page of a preview: in words what is done with images, then each image in all the ways it is shown."""

from collections.abc import Iterator, Sequence

from finetune.audit.preview.network_view import MixedImage, NetworkView
from finetune.config.settings.training_groups import Augment
from finetune.data.augmentation.description import Change, describe_augmentation
from finetune.data.table import ImageTable
from finetune.data.thumbnails import encode_jpeg
from finetune.data.transforms import InputSpec
from finetune.report.html.blocks import Block, Code, Column, Gallery, ImageBlock, Section, Table, Text

_SIDE = 200
INTERPOLATED = "with {} interpolation"
MIXED = {
    "Mixup": "Each image of a batch is blended with the one before it; below are the shares of its target.",
    "CutMix": "A rectangle of each image of a batch comes from the one before it; below are the shares of its target.",
}


def preview_sections(
    table: ImageTable,
    spec: InputSpec,
    augment: Augment,
    shown: Sequence[NetworkView],
    mixtures: dict[str, list[MixedImage]],
    command: str,
    notes: Sequence[str] = (),
) -> list[Section]:
    """Return the sections of the page.

    Args:
        table: The images.
        spec: What the network expects of them.
        augment: How they are varied.
        shown: Some of them.
        mixtures: Some that are mixed, by the name of the mixing.
        command: What trains with these settings.
        notes: What else is done, in sentences.
    """
    changes = describe_augmentation(augment, crop_mode=spec.crop_mode)
    told = Section("settings", "Augmentation", tuple(_preview_blocks(spec, changes, command, notes)), _lead_of(changes))
    found = [told, Section("images", "Images", tuple(_gallery(table, each) for each in shown), _reading(shown))]
    for name, made in mixtures.items():
        if made:
            found.append(Section(name.lower(), name, (Gallery(name, tuple(map(mixture, made)), MIXED[name]),)))
    return found


def _lead_of(changes: Sequence[Change]) -> str:
    """Return in a sentence what may be done with an image."""
    active = [change for change in changes if change.probability > 0]
    if not active:
        return "Nothing is varied: training sees images as evaluation does."
    ways = "one way" if len(active) == 1 else f"{len(active)} ways"
    return f"Training images may be changed in {ways}; evaluation and prediction change nothing."


def _preview_blocks(spec: InputSpec, changes: Sequence[Change], command: str, notes: Sequence[str]) -> Iterator[Block]:
    """Yield in words how evaluation sees images and how training varies them, and the command that trains so."""
    yield Text(f"Evaluation, prediction and cached features: {evaluation_words(spec)}.")
    active = [change for change in changes if change.probability > 0]
    if active:
        columns = (Column("change"), Column("how"), Column("probability", 2, bar=True), Column("setting"))
        rows = tuple((each.what, each.how, each.probability, each.setting) for each in active)
        yield Table("Changes of training images, in order", columns, rows)
        off = ", ".join(each.what for each in changes if each.probability == 0)
        yield Text(f"Not on: {off}." if off else "Everything is on.")
        yield Text(
            "Where a phase trains on cached features, images are seen as in evaluation, and with features.views=K in "
            "K - 1 fixed variations beside it, never mixed."
        )
    yield from map(Text, notes)
    yield Code(command, "Train with these settings")


def evaluation_words(spec: InputSpec) -> str:
    """Return in words how evaluation brings an image to the size that the network expects."""
    size = f"{spec.height} x {spec.width} pixels"
    share = "" if spec.crop_pct == 1 else f", of which the central {spec.crop_pct:.1%} of each side are kept"
    shape = {
        "center": f"the central part, {spec.crop_pct:.1%} of the shorter side, as {size}",
        "squash": f"the whole image, its aspect ratio not kept, as {size}{share}",
        "border": f"the whole image in a frame of {size}, filled up with the mean colour{share}",
    }[spec.crop_mode]
    return f"{shape}, {INTERPOLATED.format(spec.interpolation)}"


def _reading(shown: Sequence[NetworkView]) -> str:
    """Return how the galleries are read."""
    views = max((len(each.training) for each in shown), default=0)
    return (
        "Each image as it is stored, as evaluation sees it, and "
        f"{f'in the first {views} of its draws in training' if views != 1 else 'in its first draw in training'}, with "
        "the normalisation undone."
    )


def _gallery(table: ImageTable, shown: NetworkView) -> Gallery:
    """Return an image in all its ways."""
    name = str(table.frame["id"].iloc[shown.row])
    label = ", ".join(table.names()[shown.row]) or "no label"
    size = f"{shown.original.width} x {shown.original.height}"
    pictures = [
        ImageBlock(
            "original", encode_jpeg(shown.original, _SIDE), description=f"{name} as it is stored", facts={"size": size}
        ),
        ImageBlock("evaluation", encode_jpeg(shown.evaluation, _SIDE), description=f"{name} as evaluation sees it"),
    ]
    for number, image in enumerate(shown.training, 1):
        said = f"{name} in draw {number} of training"
        pictures.append(ImageBlock(f"training {number}", encode_jpeg(image, _SIDE), description=said))
    return Gallery(f"{label}: {name}", tuple(pictures))


def mixture(made: MixedImage) -> ImageBlock:
    """Return a mixed image with the shares of its labels."""
    shares = {label: f"{share:.2f}" for label, share in made.shares}
    return ImageBlock("mixed", encode_jpeg(made.image, _SIDE), description="Two training images, mixed", facts=shares)
