"""What is done with training images, on the screen."""

from rich.table import Table

from finetune.config.settings.training_groups import Augment
from finetune.data.augmentation.description import describe_augmentation


def changes_table(augment: Augment, crop_mode: str) -> Table | str:
    """Return what is done with training images, for the screen."""
    active = [change for change in describe_augmentation(augment, crop_mode=crop_mode) if change.probability > 0]
    if not active:
        return "Training: as evaluation, since nothing is varied."
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("probability", justify="right")
    table.add_column("change of training images")
    table.add_column("", overflow="fold", style="dim")
    for change in active:
        table.add_row(f"{change.probability:.2f}", change.what, change.how)
    return table
