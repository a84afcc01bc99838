"""Images of a run, and how the run is repeated."""

import shlex

import yaml

from finetune.data.table import SPLITS, load_saved_table
from finetune.report.html.blocks import Block, Cell, Code, Column, Section, Table, Text
from finetune.report.run_data import RunData
from finetune.runtime.format import format_count


def data_section(run_data: RunData) -> Section | None:
    """Return how many images of which class are in which split; None where the table is gone."""
    file = run_data.run.table_file
    if not file.is_file():
        return None
    frame, meta = load_saved_table(file)
    several = meta["task"] == "multilabel"
    counts: dict[str, dict[str, int]] = {label: dict.fromkeys(SPLITS, 0) for label in meta["labels"]}
    for split, names in zip(frame["split"].tolist(), frame["label"].tolist(), strict=True):
        for name in names if several else (names,):
            if split in SPLITS:
                counts[name][split] += 1
    rows: list[tuple[Cell, ...]] = [(label, *found.values(), sum(found.values())) for label, found in counts.items()]
    blocks: list[Block] = [Table("Images of each class", tuple(map(Column, ("class", *SPLITS, "all"))), tuple(rows))]
    if meta["skipped"]:
        blocks.append(Text(f"{format_count(len(meta['skipped']))} could not be read and were left out.", "warning"))
    if meta["groups"]:
        blocks.append(Text(f"Group columns: {', '.join(meta['groups'])}."))
    sizes = frame["split"].value_counts()
    told = ", ".join(f"{split} {sizes.get(split, 0):,}" for split in SPLITS)
    source = run_data.config.get("data", {}).get("source", {})
    place = source.get("root") or source.get("path") or source.get("name") or source.get("_target_", "").split(".")[-1]
    return Section(
        "data", "Data", tuple(blocks), f"{place}: {format_count(len(frame))} ({told}), {len(counts):,} classes."
    )


def reproduce_section(run_data: RunData) -> Section:
    """Return the command, the versions and the whole configuration."""
    record, config = run_data.record, run_data.config
    git = record.get("git") or {}
    rows = [("run", str(record.get("id", ""))), ("status", run_data.run.status), ("seed", str(record.get("seed", ""))),
            ("created", str(record.get("created", ""))[:19].replace("T", " ")),
            ("data fingerprint", str((record.get("data") or {}).get("fingerprint", "")))]  # fmt: skip
    rows += [("commit", f"{git.get('commit', '')}{' with changes' if git.get('dirty') else ''}")] if git else []
    rows += [(name, str(version)) for name, version in record.get("versions", {}).items()]
    tracked = record.get("wandb") or {}
    # as it is typed again, without the folder that the run is in already
    words = [word for word in (record.get("command") or [])[1:] if not word.startswith("hydra.run.dir=")]
    rows += [("W&B", str(tracked.get("url") or f"offline: {tracked.get('folder', '')}"))] if tracked else []
    blocks = (
        Code(shlex.join(["finetune", *words]), "Repeat the run"),
        Table("What it was made with", (Column("what"), Column("value")), tuple(rows)),
        Code(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), "The whole configuration", folded=True),
    )
    return Section("reproduce", "How to reproduce", blocks)
