"""Parameter groups: each parameter once, layer decay as in timm, and any optimizer of timm follows them."""

from functools import cache

import pytest
import timm
import torch
from configured import settings_for
from pytorch_lightning.plugins.precision import MixedPrecision
from timm.optim import list_optimizers, param_groups_layer_decay

from finetune.config.settings.phases import Phase
from finetune.config.settings.training_groups import Schedule
from finetune.errors import ConfigError
from finetune.models.heads.modules import HeadSpec
from finetune.models.network import Network, build_network
from finetune.training.freezing import apply_phase
from finetune.training.optimizers import build_optimizer, check_groups, parameter_groups
from finetune.training.schedules import build_scheduler

MODELS = ("test_resnet", "test_vit", "test_vit2", "test_efficientnet", "test_convnext", "mobilenetv3_small_050")
ALL = Phase("all", "all", layer_decay=0.7)
PHASES = (
    Phase("head", "head"),
    ALL,
    Phase("half", "last", fraction=0.5),
    Phase("bias_norm", "bias_norm"),
)


def make_network(name: str) -> Network:
    """Return an untrained network of 3 classes."""
    return build_network(name, num_classes=3, weights="none", head=HeadSpec())


@cache
def shared_network(name: str) -> Network:
    """Return a network that several tests freeze in turn."""
    return make_network(name)


def rates_by_parameter(network: Network, groups: list[dict]) -> dict[str, tuple[float, float]]:
    """Return rate and decay of each moving parameter."""
    names = {id(weight): name for name, weight in network.named_parameters()}
    return {names[id(weight)]: (group["lr"], group["weight_decay"]) for group in groups for weight in group["params"]}


@pytest.mark.parametrize("name", MODELS)
def test_rates_and_decay_equal_those_of_timm(name: str) -> None:
    network = shared_network(name)
    apply_phase(network, ALL)
    found = rates_by_parameter(network, parameter_groups(network, ALL, lr=0.1, weight_decay=0.05))
    model = timm.create_model(name, num_classes=3)
    undecayed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups = param_groups_layer_decay(model, 0.05, undecayed, layer_decay=0.7)
    expected = {id(weight): (0.1 * g["lr_scale"], g["weight_decay"]) for g in groups for weight in g["params"]}
    backbone = {name.removeprefix("backbone."): pair for name, pair in found.items() if name.startswith("backbone.")}
    theirs = {name: expected[id(weight)] for name, weight in model.named_parameters() if name in backbone}
    assert backbone.keys() == theirs.keys()
    for parameter, pair in backbone.items():
        assert pair == pytest.approx(theirs[parameter]), parameter


@pytest.mark.parametrize("name", ("test_resnet", "test_vit"))
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_every_parameter_in_one_group(name: str, phase: Phase) -> None:
    network = shared_network(name)
    apply_phase(network, phase)
    groups = parameter_groups(network, phase, lr=0.1, weight_decay=0.05)
    grouped = [id(weight) for group in groups for weight in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(weight) for weight in network.parameters() if weight.requires_grad}
    assert len({group["name"] for group in groups}) == len(groups)


def test_groups_that_leave_parameters_out_are_named() -> None:
    network = make_network("test_resnet")
    apply_phase(network, ALL)
    groups = parameter_groups(network, ALL, lr=0.1, weight_decay=0.05)
    head = next(group for group in groups if group["name"] == "head")
    with pytest.raises(ConfigError, match=r"1 parameters .* head\.\S*weight \(in 0 groups, moving\)"):
        check_groups(network, [group for group in groups if group is not head])
    with pytest.raises(ConfigError, match=r"in 2 groups, moving"):
        check_groups(network, [*groups, head])
    head["params"][0].requires_grad = False
    with pytest.raises(ConfigError, match=r"in 1 groups, frozen"):
        check_groups(network, groups)


def test_layer_decay_reaches_every_groups_rate() -> None:
    network = make_network("test_vit")
    apply_phase(network, ALL)
    groups = parameter_groups(network, ALL, lr=0.1, weight_decay=0.05)
    optimizer = build_optimizer("adamw", groups, {})
    before = [group["lr"] for group in groups]
    names = [group["name"].removesuffix("/no_decay") for group in optimizer.param_groups]
    by_layer = dict(zip(names, before, strict=True))
    assert list(by_layer)[-1] == "head"
    assert list(by_layer.values()) == pytest.approx([0.1 * 0.7**depth for depth in reversed(range(len(by_layer)))])
    scheduler = build_scheduler(optimizer, 10, settings_for(Schedule, "linear", warmup=0.0, final=0.0))
    network(torch.zeros(1, 3, 160, 160)).sum().backward()
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate * 0.85 for rate in before])


def test_shallow_layers_move_less_than_deep_ones() -> None:
    network = make_network("test_vit")
    apply_phase(network, ALL)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    optimizer = build_optimizer("adamw", parameter_groups(network, ALL, lr=1e-3, weight_decay=0.0), {})
    network(torch.randn(2, 3, 160, 160)).pow(2).sum().backward()
    optimizer.step()
    moved = {name: float((weight.detach() - before[name]).abs().max()) for name, weight in network.named_parameters()}
    assert moved["backbone.patch_embed.proj.weight"] == pytest.approx(1e-3 * 0.7**7, rel=0.05)
    assert next(size for name, size in moved.items() if name.startswith("head")) == pytest.approx(1e-3, rel=0.05)


def test_head_lr_and_the_phases_own_rate_apply() -> None:
    network = make_network("test_resnet")
    phase = Phase("all", "all", lr=0.01, head_lr=10.0, layer_decay=0.5)
    apply_phase(network, phase)
    rates = {group["name"]: group["lr"] for group in parameter_groups(network, phase, lr=99.0, weight_decay=0.0)}
    assert rates["head"] == pytest.approx(0.1)
    assert rates["backbone.4"] == pytest.approx(0.01 * 0.5)


def test_what_the_model_wants_without_decay_gets_none() -> None:
    network = make_network("test_vit")
    apply_phase(network, ALL)
    found = rates_by_parameter(network, parameter_groups(network, ALL, lr=0.1, weight_decay=0.05))
    assert found["backbone.pos_embed"][1] == found["backbone.cls_token"][1] == 0
    assert found["backbone.blocks.0.norm1.weight"][1] == found["backbone.blocks.0.mlp.fc1.bias"][1] == 0
    assert found["backbone.blocks.0.mlp.fc1.weight"][1] == 0.05


def test_nothing_that_moves_is_an_error() -> None:
    network = make_network("test_resnet")
    network.requires_grad_(False)
    with pytest.raises(ConfigError, match="Nothing moves in phase 'head'"):
        parameter_groups(network, PHASES[0], lr=0.1, weight_decay=0.0)


def usable_optimizers() -> list[str]:
    """Return the optimizers of timm that need no further package or GPU and only first-order gradients."""
    names = [name for name in list_optimizers(exclude_filters=["bnb*", "fused*", "adahessian", "kron*"])]
    return [*names, "lookahead_adamw"]


@pytest.mark.parametrize("name", usable_optimizers())
def test_every_optimizer_follows_the_rates_of_its_groups(name: str) -> None:
    torch.manual_seed(0)
    still, moving = torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)
    before = still.weight.detach().clone(), moving.weight.detach().clone()
    groups = [
        {"params": list(still.parameters()), "name": "still", "lr": 1e-12, "weight_decay": 0.0},
        {"params": list(moving.parameters()), "name": "moving", "lr": 1e-2, "weight_decay": 0.0},
    ]
    optimizer = build_optimizer(name, groups, {})
    for _ in range(8):
        optimizer.zero_grad()
        moving(still(torch.randn(8, 4))).pow(2).sum().backward()
        optimizer.step()
    moves = [
        float((layer.weight.detach() - old).abs().max()) for layer, old in zip((still, moving), before, strict=True)
    ]
    assert moves[0] < 0.2 * moves[1]
    assert [group["name"] for group in optimizer.param_groups] == ["still", "moving"]


def group_of_one() -> list[dict]:
    """Return one group."""
    return [{"params": [torch.nn.Parameter(torch.ones(2))], "name": "head", "lr": 0.1, "weight_decay": 0.0}]


def test_options_reach_the_optimizer() -> None:
    optimizer = build_optimizer("AdamW", group_of_one(), {"betas": [0.8, 0.9], "eps": 1e-6})
    assert list(optimizer.defaults["betas"]) == [0.8, 0.9]
    assert optimizer.param_groups[0]["eps"] == 1e-6
    assert build_optimizer("sgd", group_of_one(), {"momentum": 0.5}).param_groups[0]["momentum"] == 0.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamm", {}, "Did you mean 'adam"),
        ("lookahead_sgdd", {}, "Did you mean 'sgd"),
        ("adamw", {"beta": 0.9}, r"not an option of adamw \(amsgrad, betas.*Did you mean 'betas'"),
        ("adamw", {"layer_decay": 0.9}, "layer_decay is not an option"),
        ("adamw", {"lr": 0.9}, "set by optimizer.lr"),
        ("adamw", {"betas": [2.0, 0.9]}, "Invalid beta"),
        ("adahessian", {}, "second-order"),
    ],
)
def test_wrong_names_and_options_are_errors_with_the_right_ones(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_optimizer(name, group_of_one(), options)


def steps(name: str, groups: list[dict], **settings: object) -> list[torch.Tensor]:
    """Return the weights of two groups after some steps on the same gradients."""
    optimizer = build_optimizer(name, groups, {}, **settings)
    for seed in range(5):
        torch.manual_seed(seed)
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = torch.randn_like(weight)
        optimizer.step()
    return [weight.detach() for group in optimizer.param_groups for weight in group["params"]]


def two_groups(dtype: torch.dtype = torch.float32) -> list[dict]:
    """Return two groups with rates and decays of their own."""
    torch.manual_seed(9)
    weights = [torch.nn.Parameter(torch.randn(5, 4, dtype=dtype)) for _ in range(2)]
    return [
        {"params": [weight], "name": str(number), "lr": 0.1 / (1 + number), "weight_decay": 0.1 * number}
        for number, weight in enumerate(weights)
    ]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "nesterov", "lookahead_adamw"])
def test_fused_steps_equal_those_of_the_plain_optimizer_up_to_rounding(name: str) -> None:
    optimizer = build_optimizer(name, two_groups(), {}, fuse=True)
    assert all(group["fused"] for group in optimizer.param_groups)
    for one, other in zip(steps(name, two_groups(), fuse=True), steps(name, two_groups()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"fused": False}, {"foreach": True}, {"foreach": False}])
def test_typed_options_go_before_fusing(options: dict) -> None:
    (group,) = build_optimizer("adamw", group_of_one(), options, fuse=True).param_groups
    assert not group["fused"] and group["foreach"] == options.get("foreach")
    assert build_optimizer("adamw", group_of_one(), {"fused": True}).param_groups[0]["fused"]


@pytest.mark.parametrize("name", usable_optimizers())
def test_fusing_is_asked_only_of_what_can_do_it(name: str) -> None:
    assert build_optimizer(name, two_groups(), {}, fuse=True).param_groups
    on_meta = [{"params": [torch.nn.Parameter(torch.ones(2, device="meta"))], "name": "head", "lr": 0.1}]
    assert not build_optimizer("adamw", on_meta, {}, fuse=True).param_groups[0]["fused"]


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_gradients_are_clipped_before_a_fused_step(precision: str) -> None:
    scaler = torch.amp.GradScaler("cpu") if precision == "16-mixed" else None
    optimizer = build_optimizer("sgd", group_of_one(), {"fused": True})
    (weight,) = optimizer.param_groups[0]["params"]
    weight.grad = torch.full((2,), 30.0)
    MixedPrecision(precision, "cpu", scaler).clip_gradients(optimizer, 1.0)  # type: ignore[arg-type]
    assert weight.grad.norm() == pytest.approx(1, abs=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_optimizer_that_needs_a_gpu_says_so() -> None:
    with pytest.raises(ConfigError, match="CUDA"):
        build_optimizer("fusedadam", group_of_one(), {})
