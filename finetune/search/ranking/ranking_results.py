"""Ranking results: rows, the Pareto front, and the files they are written to."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.config.settings.search_groups import RankSettings
from finetune.errors import ConfigError, FinetuneError, RunError
from finetune.models.weights import BUNDLED
from finetune.runs.csv_file import write_csv
from finetune.runs.run import write_atomic, write_json
from finetune.search.ranking.candidates import (
    BackboneCandidate,
    UnavailableError,
    choose_names,
    hub_is_reachable,
    locate,
)
from finetune.search.ranking.latency import Footprint
from finetune.search.ranking.probe import ProbeScore

RANKING_COSTS = ("latency_ms", "parameters")


@dataclass(frozen=True)
class RankedBackbone:
    """A backbone that was scored.

    Attributes:
        candidate: The backbone.
        score: How good its features are.
        footprint: What it costs.
        num_features: Their number.
        height: Of an image, in pixels.
        width: Of an image, in pixels.
        computed: Images that were passed through it; the others had been before.
        seconds: How long that took.
    """

    candidate: BackboneCandidate
    score: ProbeScore
    footprint: Footprint
    num_features: int
    height: int
    width: int
    computed: int
    seconds: float

    def row(self) -> dict[str, Any]:
        """Return all values by name."""
        own = {name: value for name, value in vars(self).items() if name not in ("candidate", "score", "footprint")}
        candidate = {"name": self.candidate.name, "weights": self.candidate.typed}
        return {**candidate, **asdict(self.score), **asdict(self.footprint), **own}

    def cost(self, kind: str) -> float:
        """Return the latency or the number of parameters."""
        return float(getattr(self.footprint, kind))


@dataclass(frozen=True)
class Skipped:
    """A backbone that was not scored, and why; `failed` where it was tried."""

    name: str
    reason: str
    failed: bool = False


def ranked(entries: Sequence[RankedBackbone]) -> list[RankedBackbone]:
    """Return the entries, most accurate probe first; among equals the likelier one."""
    return sorted(entries, key=lambda entry: (-entry.score.accuracy, entry.score.nll))


def pareto(entries: Sequence[RankedBackbone], kind: str) -> list[RankedBackbone]:
    """Return the entries that no other beats: none is as accurate and as cheap, and better in one of both.

    Args:
        entries: Any.
        kind: latency_ms or parameters.
    """
    front: list[RankedBackbone] = []
    for entry in sorted(entries, key=lambda entry: (entry.cost(kind), -entry.score.accuracy)):
        last = front[-1] if front else None
        twin = last and (last.cost(kind), last.score.accuracy) == (entry.cost(kind), entry.score.accuracy)
        if last is None or twin or entry.score.accuracy > last.score.accuracy:
            front.append(entry)
    return front


def cheaper(entries: Sequence[RankedBackbone]) -> RankedBackbone | None:
    """Return the fastest entry within one standard error of the best, or None where that is the best itself."""
    best = ranked(entries)[0]
    error = best.score.accuracy_error if math.isfinite(best.score.accuracy_error) else 0.0
    near = [entry for entry in entries if entry.score.accuracy >= best.score.accuracy - error]
    fastest = min(near, key=lambda entry: entry.footprint.latency_ms)
    return None if fastest is best else fastest


def ranking_document(
    entries: Sequence[RankedBackbone], skipped: Sequence[Skipped], facts: dict[str, Any]
) -> dict[str, Any]:
    """Return everything as plain values: the rows, best first, with the fronts they are on, and what was left out."""
    fronts = {kind: {id(entry) for entry in pareto(entries, kind)} for kind in RANKING_COSTS}
    rows = [
        {**entry.row(), "pareto": {kind: id(entry) in fronts[kind] for kind in RANKING_COSTS}}
        for entry in ranked(entries)
    ]
    return {**facts, "backbones": rows, "skipped": [asdict(entry) for entry in skipped]}


def write_ranking(folder: Path, found: dict[str, Any], picture: str) -> None:
    """Write rank.json, rank.csv and rank.svg."""
    rows = [
        {name: value for name, value in row.items() if name != "pareto"}
        | {f"pareto_{kind}": on for kind, on in row["pareto"].items()}
        for row in found["backbones"]
    ]
    write_json(folder / "rank.json", found)
    write_csv(folder / "rank.csv", rows)
    write_atomic(folder / "rank.svg", picture)


def training_command(candidate: BackboneCandidate, typed: Sequence[str]) -> str:
    """Return the command line that trains a backbone on the same data.

    Args:
        candidate: The backbone.
        typed: The overrides of this command line; those of rank alone are left out.
    """
    kept = [override for override in typed if not override.lstrip("+~").startswith("rank.")]
    if candidate.name == BUNDLED and candidate.typed == "bundled":
        model = ["model=efficientnet_lite0"]
    else:
        model = ["model=timm", f"model.name={candidate.name}"]
        model += [f"model.weights={candidate.typed}"] if candidate.typed != "timm" else []
    return shlex.join(["finetune", *kept, *model])


def nothing_scored(skipped: Sequence[Skipped]) -> FinetuneError:
    """Return the error to raise where no backbone could be scored."""
    reasons = "; ".join(f"{entry.name}: {entry.reason.rstrip('.')}" for entry in skipped[:3])
    kind = RunError if any(entry.failed for entry in skipped) else ConfigError
    return kind(
        f"None of {len(skipped)} backbones could be scored ({reasons}). Name others with rank.models=[NAME,…], or give "
        "their weights with rank.weights_dir=FOLDER."
    )


def find_backbones(options: RankSettings) -> tuple[list[BackboneCandidate], list[Skipped]]:
    """Return the backbones whose weights are to be had, and the others with the reasons."""
    folder = Path(options.weights_dir).expanduser() if options.weights_dir is not None else None
    candidates, skipped = [], []
    for name in choose_names(options.models, folder, pretrained=options.weights != "none"):
        try:
            candidates.append(locate(name, options.weights, folder, hub_is_reachable))
        except UnavailableError as error:
            skipped.append(Skipped(name, str(error)))
    return candidates, skipped
