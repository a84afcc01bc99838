"""The space of architectures: each of its networks can be built, and what they cost can be searched by."""

import pytest
from hydra import compose, initialize_config_dir

from finetune.config.compose import conf_dir, register
from finetune.models.network import build_network
from finetune.search.command_line import read_request
from finetune.search.sweep_plan import make_sweep_plan

register()
ROOT = ["--config-name", "sweep", "space=architecture"]
PLAN = make_sweep_plan(read_request(ROOT))
VALUES = {each.key: each for each in PLAN.space.dimensions}


@pytest.mark.parametrize("model", [choice.text for choice in VALUES["model"].choices])
def test_every_backbone_can_be_cut_at_every_depth_and_takes_every_resolution(model: str) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        name = compose("train", [f"model={model}"]).model.name
    depths = [float(str(value)) for value in VALUES["model.depth"].values()]
    sizes = [int(str(value)) for value in VALUES["data.image_size"].values()]
    counts = []
    for depth, size in zip([min(depths), *depths], [max(sizes), *(sizes * len(depths))], strict=False):
        network = build_network(name, num_classes=2, weights="none", image_size=size, depth=depth)
        counts.append(sum(value.numel() for value in network.parameters()))
    assert counts[1:] == sorted(set(counts[1:])), "a greater depth has more parameters"


def test_latency_and_parameters_can_be_objectives_and_budgets() -> None:
    objectives = make_sweep_plan(read_request([*ROOT, "sweep=nsga2", "sweep.metric=[val/accuracy,latency]"]))
    assert [each.name for each in objectives.settings.objectives] == ["val/accuracy", "latency"]
    limited = make_sweep_plan(read_request([*ROOT, "sweep.budget.latency=20", "sweep.budget.parameters=5e6"]))
    assert dict(limited.settings.budget) == {"latency": 20, "parameters": 5e6}


def test_a_typed_backbone_goes_before_those_of_the_space() -> None:
    plan = make_sweep_plan(read_request([*ROOT, "model=efficientnet_lite0"]))
    assert "model" not in {each.key for each in plan.space.dimensions}
    assert "model=efficientnet_lite0" in plan.fixed
