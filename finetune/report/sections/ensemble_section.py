"""Cross-validation and its folds, or an ensemble and its members."""

from collections.abc import Mapping
from typing import Any

from finetune.report.html.blocks import Block, Column, Section, Table, Text
from finetune.report.run_data import RunData
from finetune.runtime.format import format_count

_KINDS = {
    "kfold": "folds of equal size",
    "stratified": "folds with equal shares of each class",
    "grouped": "folds that part no group",
    "repeated": "folds with equal shares of each class, dealt out several times",
    "leave_one_out": "each image or group held out by itself",
    "bootstrap": "images drawn with replacement (bagging)",
}
_SHOWN = ("accuracy", "exact_match", "f1_macro", "roc_auc", "average_precision", "loss", "calibration_error")
_MANY = 30  # folds, of which single ones are not listed


def crossval_section(run_data: RunData) -> Section | None:
    """Tell how the folds of a cross-validation did; None for any other run."""
    cv = run_data.document.get("cv")
    if not cv:
        return None
    split = cv["out_of_fold"]
    lead = (
        f"{format_count(cv['folds'], 'fold')}: {_KINDS[cv['kind']]}. The scores called {split} are those of "
        f"{cv['images']:,} images, each predicted by models that have not seen it."
    )
    if split == "val":
        lead += " The test scores are those of all folds' models together, on images that none of them has seen."
    blocks: list[Block] = []
    metrics: Mapping[str, Any] = cv["metrics"]
    names = [name for name in _SHOWN if name in metrics]
    if names:
        keys = ("mean", "spread", "low", "high")
        rows = tuple((name.replace("_", " "), *(metrics[name][key] for key in keys)) for name in names)
        columns = (Column("score"), Column("mean of folds", 4), Column("spread", 4, hint="standard deviation"),
                   Column("low", 4, hint="95 % interval of the mean"), Column("high", 4))  # fmt: skip
        blocks.append(Table("Scores over the folds", columns, rows))
        blocks.append(Text(
            "The interval is wider than that of independent values, since folds share most of their training images "
            "(Nadeau and Bengio 2003)."
        ))  # fmt: skip
        if cv["folds"] <= _MANY:
            blocks.append(fold_table(cv, names))
    return Section("folds", "Cross-validation", tuple(blocks), lead=lead)


def fold_table(cv: Mapping[str, Any], names: list[str]) -> Table:
    """Return a row for each fold."""
    settings = cv.get("settings") or [[]] * cv["folds"]
    searched = any(settings)
    weights = cv.get("weights")  # runs of earlier versions have none
    columns = [Column("fold"), Column("held out"), Column("learnt from")]
    columns += [Column("weight", 3, hint="in the ensemble of all folds")] if weights else []
    columns += [Column(name.replace("_", " "), 4) for name in names]
    columns += [Column("searched")] if searched else []
    rows = tuple(
        (number, cv["n"][number], cv["learnt"][number], *(weights[number : number + 1] if weights else ()),
         *(cv["metrics"][name]["values"][number] for name in names),
         *((" ".join(settings[number]),) if searched else ()))
        for number in range(cv["folds"])
    )  # fmt: skip
    return Table("Folds", tuple(columns), rows, key=False)


def ensemble_section(run_data: RunData) -> Section | None:
    """Tell what an ensemble was made of, and how it stands beside its best member; None for any other run."""
    made = run_data.document.get("ensemble")
    if not made:
        return None
    members = made["members"]
    rows = tuple((each["name"], each["weight"], each["path"]) for each in members)
    columns = (Column("member"), Column("weight", 3), Column("folder"))
    blocks: list[Block] = [Table("Members", columns, rows)]
    if made.get("tried"):
        monitor = next(name for name in made["tried"][0] if name.startswith("val/"))
        blocks.append(tried_table(made["tried"], monitor))
    against = made.get("against_best")
    lead = f"{format_count(len(members), 'model')} joined by {made['method'].replace('_', ' ')}."
    if against is not None:
        lead += f" {against['verdict']}"
    return Section("ensemble", "Ensemble", tuple(blocks), lead=lead)


def tried_table(tried: list[Mapping[str, Any]], monitor: str) -> Table:
    """Return what was tried on validation."""
    rows = tuple(
        (" ".join(f"{weight:.3g}" for weight in each["weights"]), each[monitor], each["val/loss"]) for each in tried
    )
    return Table("Tried on validation", (Column("weights"), Column(monitor, 4), Column("val/loss", 4)), rows, key=False)
