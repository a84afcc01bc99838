"""An ensemble as one network: backbones side by side, and a head that combines what their heads say."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune.data.table import LabelTask
from finetune.data.transforms import InputSpec
from finetune.errors import ConfigError
from finetune.models.fingerprint import backbone_identity
from finetune.models.heads.modules import HeadSpec, build_head, fold_standardize, standardize_layer
from finetune.models.heads.sequence_heads import columns_of
from finetune.models.input_spec import check_value_ranges
from finetune.models.network import Network, build_network
from finetune.uncertainty.scaling import Scaling

Rule = Literal["mean", "logits", "vote", "stacking"]
# scores beyond it say no more than that a member is sure
_LIMIT = 15.0


def combine(scores: Tensor, rule: Rule, weights: Tensor, *, multilabel: bool) -> Tensor:
    """Return what members say together, as logits (B, K) whose softmax, or sigmoid, are the probabilities.

    With mean they are the weighted mean of the members' probabilities, with logits that of their logarithms (a product
    of experts), with vote the weighted shares of their votes, to which one vote is added that is spread evenly, so that
    no probability is 0.

    Args:
        scores: Of the members (M, B, K): logarithms of probabilities, or log-odds for several labels per image.
        rule: mean, logits or vote.
        weights: Of the members (M,), which sum to 1.
        multilabel: Whether an image may have several labels.

    Source: Kittler et al. 1998, On Combining Classifiers, section 2.
    """
    share = weights.to(scores)[:, None, None]
    if rule == "logits":
        return (share * scores).sum(0)
    if rule == "mean":
        if not multilabel:
            return torch.logsumexp(scores + share.log(), dim=0)
        held, absent = (torch.logsumexp(functional.logsigmoid(part) + share.log(), 0) for part in (scores, -scores))
        return held - absent
    members, labels = len(scores), scores.shape[-1]
    if multilabel:
        votes = (share * (scores > 0)).sum(0)
        return torch.logit((members * votes + 0.5) / (members + 1))
    cast = functional.one_hot(scores.argmax(-1), labels)
    return ((members * (share * cast).sum(0) + 1 / labels) / (members + 1)).log()


def scores_of(probabilities: npt.NDArray[Any], *, multilabel: bool) -> Tensor:
    """Return what members say (M, N, K) as `combine` takes it, from their probabilities (M, N, K)."""
    values = torch.from_numpy(probabilities.astype(np.float64))
    tiny = float(np.finfo(np.float32).tiny)
    found = torch.logit(values, eps=1e-7) if multilabel else values.clamp(min=tiny).log()
    return found.clamp(-_LIMIT, _LIMIT)


class JoinedHead(nn.Module):
    """The heads of all members, scaled as each was calibrated, and what they say together.

    Attributes:
        parts: Of each member, the columns of the features that its head reads.
    """

    def __init__(
        self, heads: Sequence[nn.Module], parts: Sequence[tuple[int, int]], labels: int, rule: Rule, task: LabelTask
    ) -> None:
        """Join heads with equal weights and without scaling; `set_member` and the mixer's weights change that."""
        super().__init__()
        members = len(heads)
        self.heads = nn.ModuleList(heads)
        self.parts = tuple((int(start), int(end)) for start, end in parts)
        self.rule: Rule = rule
        self.multilabel = task == "multilabel"
        self.weights: Tensor
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("weights", torch.full((members,), 1 / members))
        self.register_buffer("scale", torch.ones(members, labels))
        self.register_buffer("shift", torch.zeros(members, labels))
        self.mixer = nn.Linear(members * labels, labels) if rule == "stacking" else None

    def set_scaling(self, member: int, scaling: Scaling) -> None:
        """Take over how a member's logits are scaled."""
        self.scale[member] = torch.tensor(scaling.scale, dtype=torch.float32)
        self.shift[member] = torch.tensor(scaling.shift, dtype=torch.float32)

    def scores(self, features: Tensor) -> Tensor:
        """Return what each member says (M, B, K) of features (B, F): logarithms of probabilities, or log-odds.

        Of sequences the features are those of their frames, padded (B, T, 1 + F).
        """
        found = []
        for member, (head, (start, end)) in enumerate(zip(self.heads, self.parts, strict=True)):
            logits = head(columns_of(features, start, end)).float()
            if not self.multilabel:  # as calibration was fitted
                logits = logits - logits.mean(dim=1, keepdim=True)
            scaled = logits * self.scale[member] + self.shift[member]
            found.append(scaled if self.multilabel else scaled.log_softmax(dim=1))
        return torch.stack(found).clamp(-_LIMIT, _LIMIT)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of the features of all backbones (B, F)."""
        scores = self.scores(features)
        if self.mixer is not None:
            return self.mixer(scores.transpose(0, 1).flatten(1))  # type: ignore[no-any-return]
        return combine(scores, self.rule, self.weights, multilabel=self.multilabel)


class JoinedBackbone(nn.Module):
    """Several backbones on the same images: their features side by side.

    Each image comes as the first one wants it; for the others it is brought to their mean, deviation and size.
    """

    def __init__(self, backbones: Sequence[nn.Module], specs: Sequence[InputSpec]) -> None:
        """Put backbones beside each other, with what each expects of an image."""
        super().__init__()
        self.backbones = nn.ModuleList(backbones)
        self.sizes = tuple((spec.height, spec.width) for spec in specs)
        own = torch.tensor([[spec.mean, spec.std] for spec in specs])
        self.gain: Tensor
        self.offset: Tensor
        self.register_buffer("gain", own[0, 1] / own[:, 1], persistent=False)
        self.register_buffer("offset", (own[0, 0] - own[:, 0]) / own[:, 1], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, F) of images (B, C, H, W), normalised for the first backbone."""
        found = []
        for number, backbone in enumerate(self.backbones):
            seen = images
            if number:
                seen = images * self.gain[number][:, None, None] + self.offset[number][:, None, None]
                if seen.shape[-2:] != self.sizes[number]:
                    seen = functional.interpolate(seen, self.sizes[number], mode="bicubic", antialias=True)
            found.append(backbone(seen))
        return torch.cat(found, dim=1)


@dataclass(frozen=True)
class Member:
    """A network that takes part, with how its logits are scaled."""

    network: Network
    scaling: Scaling = Scaling()


def join_networks(
    members: Sequence[Member], rule: Rule, task: LabelTask, weights: npt.NDArray[np.float64] | None = None
) -> Network:
    """Return one network of several; backbones with the same weights are there once.

    Members count by weights (M,), which sum to 1, or all alike without any.

    Raises:
        ConfigError: There is no member, or their labels, channels or frames differ in number.
    """
    if not members:
        raise ConfigError("An ensemble needs at least one member.")
    numbers = {(each.network.num_classes, each.network.spec.channels, each.network.frames or 0) for each in members}
    if len(numbers) > 1:
        raise ConfigError(
            f"Members must agree in labels and channels, and in frames of a sequence; they have {sorted(numbers)}."
        )
    check_value_ranges([each.network.spec for each in members])
    owners, places = distinct_backbones([each.network for each in members])
    heads = [fold_standardize(each.network.head) for each in members]
    labels = members[0].network.num_classes
    structure = {
        "rule": rule, "task": task, "labels": labels, "frames": members[0].network.frames,
        "backbones": [_describe(owner) for owner in owners],
        "members": [
            {"backbone": place, "head": describe_head(each.network, head)}
            for place, head, each in zip(places, heads, members, strict=True)
        ],
    }  # fmt: skip
    head = JoinedHead(heads, feature_columns(structure), labels, rule, task)
    for number, each in enumerate(members):
        head.set_scaling(number, each.scaling)
    if weights is not None:
        head.weights.copy_(torch.from_numpy(weights))
    return assemble_network([owner.backbone for owner in owners], head, structure, owners[0].spec)


def distinct_backbones(networks: Sequence[Network]) -> tuple[list[Network], list[int]]:
    """Return the networks whose backbones differ, and for each network which of them has its backbone."""
    owners: list[Network] = []
    places: list[int] = []
    known: list[tuple[dict[str, Any], InputSpec]] = []
    for network in networks:
        same = [place for place, owner in enumerate(owners) if owner.backbone is network.backbone]
        if not same:
            identity = backbone_identity(network), network.spec
            if identity not in known:
                known.append(identity)
                owners.append(network)
            same = [known.index(identity)]
        places.append(same[0])
    return owners, places


def describe_head(network: Network, head: nn.Sequential) -> dict[str, Any]:
    """Return what a member's head is built from again; that of an ensemble is one of the whole."""
    if "ensemble" in network.options:
        return {"ensemble": network.options["ensemble"]}
    found: dict[str, Any] = network.options["head"] | {"standardize": standardize_layer(head) is not None}
    return found


def _describe(network: Network) -> dict[str, Any]:
    """Return what a backbone is built from again."""
    options = {name: value for name, value in network.options.items() if name not in ("head", "frames")}
    return {
        "name": network.name,
        "options": options,
        "input": asdict(network.spec),
        "num_features": network.num_features,
    }


def feature_columns(structure: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return which features each member reads."""
    ends = [0]
    for backbone in structure["backbones"]:
        ends.append(ends[-1] + int(backbone["num_features"]))
    return [(ends[each["backbone"]], ends[each["backbone"] + 1]) for each in structure["members"]]


def assemble_network(
    backbones: Sequence[nn.Module], head: JoinedHead, structure: Mapping[str, Any], spec: InputSpec
) -> Network:
    """Return the network; a single backbone stays as it is, so that all that knows backbones knows this one."""
    specs = [InputSpec.stored(each["input"]) for each in structure["backbones"]]
    backbone = backbones[0] if len(backbones) == 1 else JoinedBackbone(backbones, specs)
    names = [str(each["name"]) for each in structure["backbones"]]
    return Network(
        backbone, nn.Sequential(head), name="+".join(dict.fromkeys(names)), spec=spec,
        num_features=sum(int(each["num_features"]) for each in structure["backbones"]),
        num_classes=int(structure["labels"]), options={"ensemble": structure}, frames=structure.get("frames"),
    ).eval()  # fmt: skip


def build_joined(structure: Mapping[str, Any]) -> Network:
    """Return the network of a stored structure, without its weights."""
    labels = int(structure["labels"])
    owners = [
        build_joined(each["options"]["ensemble"])
        if "ensemble" in each["options"]
        else build_network(each["name"], num_classes=labels, weights="none", **each["options"])
        for each in structure["backbones"]
    ]
    heads = [
        build_joined(each["head"]["ensemble"]).head
        if "ensemble" in each["head"]
        else build_head(HeadSpec(**each["head"]), owners[each["backbone"]].num_features, labels)
        for each in structure["members"]
    ]
    head = JoinedHead(heads, feature_columns(structure), labels, structure["rule"], structure["task"])
    return assemble_network(
        [owner.backbone for owner in owners], head, structure, InputSpec.stored(structure["backbones"][0]["input"])
    )


def split_ensemble(network: Network) -> list[Member]:
    """Return the members that `join_networks` made a network of, which share what they shared."""
    head, structure = network.head[0], network.options["ensemble"]
    assert isinstance(head, JoinedHead)
    joined = network.backbone
    backbones = list(joined.backbones) if isinstance(joined, JoinedBackbone) else [joined]
    found = []
    for number, (part, each) in enumerate(zip(head.heads, structure["members"], strict=True)):
        assert isinstance(part, nn.Sequential)
        owner, options = structure["backbones"][each["backbone"]], each["head"]
        options = options if "ensemble" in options else {"head": options}
        member = Network(
            backbones[each["backbone"]], part, name=str(owner["name"]), spec=InputSpec.stored(owner["input"]),
            num_features=int(owner["num_features"]), num_classes=int(structure["labels"]),
            options=owner["options"] | options, frames=structure.get("frames"),
        )  # fmt: skip
        scale, shift = (tuple(values[number].tolist()) for values in (head.scale, head.shift))
        found.append(Member(member.eval(), Scaling("vector", scale, shift)))
    return found
