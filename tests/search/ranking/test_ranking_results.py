"""Results: the Pareto front is what nothing beats, files hold all of it, and the printed command trains the winner."""

import csv
import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.report.pages.ranking_chart import draw_ranking
from finetune.search.ranking.candidates import BackboneCandidate
from finetune.search.ranking.latency import Footprint
from finetune.search.ranking.probe import ProbeScore
from finetune.search.ranking.ranking_results import (
    RankedBackbone,
    Skipped,
    cheaper,
    pareto,
    ranked,
    ranking_document,
    training_command,
    write_ranking,
)


def entry(name: str, accuracy: float, latency: float, parameters: int = 1000, nll: float = 0.5) -> RankedBackbone:
    score = ProbeScore(accuracy, 0.02, nll, 0.01, 0.3, 5)
    return RankedBackbone(
        BackboneCandidate(name, "timm", "timm"),
        score,
        Footprint(parameters, latency, latency, 10**6),
        8,
        32,
        32,
        10,
        0.1,
    )


places = st.lists(st.tuples(st.sampled_from([0.5, 0.6, 0.7, 0.8]), st.sampled_from([1.0, 2.0, 3.0, 5.0])), min_size=1)


@given(places)
def test_front_is_what_nothing_beats(found: list[tuple[float, float]]) -> None:
    entries = [entry(str(number), accuracy, latency) for number, (accuracy, latency) in enumerate(found)]

    def beaten(one: RankedBackbone) -> bool:
        return any(
            other.score.accuracy >= one.score.accuracy
            and other.footprint.latency_ms <= one.footprint.latency_ms
            and (other.score.accuracy, -other.footprint.latency_ms) != (one.score.accuracy, -one.footprint.latency_ms)
            for other in entries
        )

    expected = {one.candidate.name for one in entries if not beaten(one)}
    assert {one.candidate.name for one in pareto(entries, "latency_ms")} == expected


def test_the_most_accurate_comes_first_and_the_likelier_among_equals() -> None:
    entries = [entry("a", 0.8, 1.0), entry("b", 0.9, 9.0, nll=0.4), entry("c", 0.9, 5.0, nll=0.3)]
    assert [one.candidate.name for one in ranked(entries)] == ["c", "b", "a"]


def test_a_faster_backbone_is_named_only_within_one_standard_error() -> None:
    best, near, far = entry("best", 0.90, 9.0), entry("near", 0.885, 3.0), entry("far", 0.8, 1.0)
    assert cheaper([best, near, far]) is near
    assert cheaper([best, far]) is None


def test_files_hold_every_row_best_first_and_what_was_left_out(tmp_path: Path) -> None:
    entries = [entry("small", 0.8, 1.0, 10), entry("slow", 0.7, 9.0, 5), entry("big", 0.9, 2.0, 99)]
    found = ranking_document(entries, [Skipped("gone", "no weights")], {"images": 7})
    write_ranking(tmp_path, found, draw_ranking(entries, "three"))
    stored = json.loads((tmp_path / "rank.json").read_text())
    assert [row["name"] for row in stored["backbones"]] == ["big", "small", "slow"]
    assert [row["pareto"]["latency_ms"] for row in stored["backbones"]] == [True, True, False]
    assert [row["pareto"]["parameters"] for row in stored["backbones"]] == [True, True, True]
    assert stored["skipped"] == [{"name": "gone", "reason": "no weights", "failed": False}] and stored["images"] == 7
    rows = list(csv.DictReader((tmp_path / "rank.csv").open()))
    assert [(row["name"], row["pareto_latency_ms"], float(row["accuracy"])) for row in rows] == [
        ("big", "True", 0.9),
        ("small", "True", 0.8),
        ("slow", "False", 0.7),
    ]


def test_picture_is_svg_with_a_point_and_a_name_for_each_backbone_in_each_panel() -> None:
    entries = [entry("a&b.in1k", 0.8, 1.0, 10**6), entry("c", 0.9, 2.0, 10**7), entry("d", 0.7, 9.0, 10**5)]
    root = ElementTree.fromstring(draw_ranking(entries, "one < two"))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [texts.count(name) for name in ("a&b", "c", "d")] == [2, 2, 2] and "one < two" in texts
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    points = markers(root)
    assert len(points) == 6 and all(0 <= x <= width and 0 <= y <= height for x, y in points)
    assert sum(x <= width / 2 for x, _ in points) == 3


def markers(root: ElementTree.Element) -> list[tuple[float, float]]:
    """Return the places of the round points, each of which is drawn by a reference to one shape."""
    space = "{http://www.w3.org/2000/svg}"
    shapes = {path.attrib["id"]: path.attrib["d"] for path in root.iter(f"{space}path") if "id" in path.attrib}
    uses = [use.attrib for use in root.iter(f"{space}use")]
    round_ones = [use for use in uses if "C" in shapes[use["{http://www.w3.org/1999/xlink}href"].lstrip("#")]]
    return [(float(use["x"]), float(use["y"])) for use in round_ones]


@settings(max_examples=20)
@given(st.floats(0.0, 1.0), st.floats(0.01, 1000.0))
def test_picture_of_a_single_backbone_has_finite_places(accuracy: float, latency: float) -> None:
    points = markers(ElementTree.fromstring(draw_ranking([entry("only", accuracy, latency)], "one")))
    assert len(points) == 2 and all(math.isfinite(x) and math.isfinite(y) for x, y in points)


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (BackboneCandidate("tf_efficientnet_lite0", "bundled", "bundled"), "model=efficientnet_lite0"),
        (BackboneCandidate("resnet50.a1_in1k", "/cache/x", "timm"), "model=timm model.name=resnet50.a1_in1k"),
        (BackboneCandidate("resnet18", "w/r.pth", "w/r.pth"), "model=timm model.name=resnet18 model.weights=w/r.pth"),
        (BackboneCandidate("resnet18", "none", "none"), "model=timm model.name=resnet18 model.weights=none"),
    ],
)
def test_command_trains_the_backbone_on_the_same_data(candidate: BackboneCandidate, expected: str) -> None:
    typed = ["data=folder", "data.root=my photos", "rank.folds=3", "++rank.models=x"]
    assert training_command(candidate, typed) == f"finetune data=folder 'data.root=my photos' {expected}"
