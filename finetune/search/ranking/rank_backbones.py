"""Ranking of backbones one after the other: a few in memory at a time, each with its own failures."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytorch_lightning as pl
import torch

from finetune.config.settings.checked import Target
from finetune.config.settings.roots import RankRootSettings
from finetune.config.settings.search_groups import RankSettings
from finetune.config.settings.training_groups import BalanceSettings, ModelSettings
from finetune.data.cache.store import Cache
from finetune.data.table import ImageTable
from finetune.errors import ConfigError, DataError, FinetuneError
from finetune.features.extract import FeatureSettings, FeatureSource
from finetune.models.network import Network
from finetune.models.truncation import count_parameters
from finetune.runtime.device import DevicePass
from finetune.search.ranking.candidates import BackboneCandidate
from finetune.search.ranking.latency import Footprint, footprints
from finetune.search.ranking.probe import PROBE, score_features
from finetune.search.ranking.ranking_results import RankedBackbone, Skipped
from finetune.training.build import load_backbone, load_plain_images
from finetune.training.imbalance import build_loss
from finetune.training.solved_head import HeadPlan, head_examples

log = logging.getLogger(__name__)

# bytes of the weights of backbones that are in memory, and so measured in turn, at a time
_TOGETHER = 2 * 10**9
PLAIN_LOSS = {
    "multiclass": Target("finetune.training.losses.CrossEntropy", {}),
    "multilabel": Target("finetune.training.losses.BinaryCrossEntropy", {}),
}
USUAL = BalanceSettings(beta=0.999, tau=1.0, views=4)  # a ranking has no settings for policies of a training


def rank_backbones(
    candidates: Sequence[BackboneCandidate],
    settings: RankRootSettings,
    table: ImageTable,
    device_pass: DevicePass,
    cache: Cache | None,
    tell: Callable[[str], None],
) -> tuple[list[RankedBackbone], list[Skipped]]:
    """Return the backbones that were scored, and those that were not.

    Args:
        candidates: Whose weights are to be had.
        settings: Its groups rank, data and trainer.
        table: The images; only those of the training split are looked at.
        device_pass: Where.
        cache: Keeps features; None for none.
        tell: Is told what is going on.

    Raises:
        DataError: An image cannot be read.
    """
    entries: list[RankedBackbone] = []
    skipped: list[Skipped] = []
    count = len(table.rows("train"))
    for networks in together(candidates, settings, table, skipped):
        tell(f"latency of {', '.join(candidate.name for candidate in networks)}")
        for candidate, footprint in affordable(networks, settings.rank, device_pass, skipped).items():
            tell(f"{candidate.name}: features of {count:,} images")
            found = _attempt(candidate, networks[candidate], footprint, settings, table, device_pass, cache)
            if isinstance(found, RankedBackbone):
                entries.append(found)
            else:
                skipped.append(found)
    return entries, skipped


def together(
    candidates: Sequence[BackboneCandidate], settings: RankRootSettings, table: ImageTable, skipped: list[Skipped]
) -> Iterator[dict[BackboneCandidate, Network]]:
    """Yield networks, as many at a time as memory is meant to hold; what cannot be built is added to the skipped."""
    networks: dict[BackboneCandidate, Network] = {}
    size = 0
    for candidate in candidates:
        try:
            networks[candidate] = _build(candidate, settings, table)
        except Exception as error:  # noqa: BLE001 - one backbone's failure is its own
            skipped.append(failure(candidate, error))
            continue
        size += sum(value.nbytes for value in networks[candidate].parameters())
        if size >= _TOGETHER:
            yield networks
            networks, size = {}, 0
    if networks:
        yield networks


def _build(candidate: BackboneCandidate, settings: RankRootSettings, table: ImageTable) -> Network:
    """Return a backbone with its weights.

    Raises:
        ConfigError: It cannot be built so, or has too many parameters.
    """
    limit = settings.rank.max_params
    if limit is not None:  # before anything is downloaded
        count = count_parameters(build_with(candidate, "none", settings, table).backbone)
        if count > limit:
            raise ConfigError(f"it has {count:,} parameters, more than rank.max_params={limit:,.0f}")
    return build_with(candidate, candidate.weights, settings, table)


def build_with(candidate: BackboneCandidate, weights: str, settings: RankRootSettings, table: ImageTable) -> Network:
    """Return a backbone with these weights; random ones are the same in every call, as those of a run are."""
    pl.seed_everything(settings.seed, verbose=False)
    model = ModelSettings(
        candidate.name, weights, use_ema=True, drop_rate=0.0, drop_path_rate=0.0, in_chans=3,
        image_size=settings.data.image_size,
        mean=None, std=None, interpolation=None, crop_pct=None, crop_mode=settings.data.crop_mode,
        grad_checkpointing=False, depth=None,
    )  # fmt: skip
    return load_backbone(model, settings.data, table)


def affordable(
    networks: Mapping[BackboneCandidate, Network],
    options: RankSettings,
    device_pass: DevicePass,
    skipped: list[Skipped],
) -> dict[BackboneCandidate, Footprint]:
    """Return what the networks within the budget cost; the others are added to the skipped."""
    measured = footprints(
        {candidate.name: network for candidate, network in networks.items()},
        batch=options.batch_size, repeats=options.repeats, device=device_pass.device, precision=device_pass.precision,
    )  # fmt: skip
    kept: dict[BackboneCandidate, Footprint] = {}
    for candidate in networks:
        found, limit = measured[candidate.name], options.max_latency
        if isinstance(found, Exception):
            skipped.append(failure(candidate, found))
        elif limit is not None and found.latency_ms > limit:
            reason = f"it takes {found.latency_ms:.1f} ms per image, more than rank.max_latency={limit:g}"
            skipped.append(Skipped(candidate.name, reason))
        else:
            kept[candidate] = found
    return kept


def _attempt(
    candidate: BackboneCandidate,
    network: Network,
    footprint: Footprint,
    settings: RankRootSettings,
    table: ImageTable,
    device_pass: DevicePass,
    cache: Cache | None,
) -> RankedBackbone | Skipped:
    """Return a scored backbone, or why it could not be scored; what is wrong with the images is no backbone's fault.

    Raises:
        DataError: An image cannot be read.
    """
    try:
        images = load_plain_images(settings, settings.trainer, table, network, cache)
        source = FeatureSource(network, images, FeatureSettings(cache=cache), device_pass)
        features = source.features(table.rows("train"))
        loss = build_loss(PLAIN_LOSS[table.task], settings.imbalance, settings.data, USUAL, table)
        examples = head_examples(features, images, loss, HeadPlan(PROBE, group=settings.data.splits.group))
        score = score_features(examples, folds=settings.rank.folds, seed=settings.seed)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - one backbone's failure, such as too little memory, is its own
        return failure(candidate, error)
    finally:
        network.to("cpu")
        if device_pass.device.type == "cuda":
            torch.cuda.empty_cache()
    height, width = network.spec.height, network.spec.width
    return RankedBackbone(
        candidate, score, footprint, network.num_features, height, width, source.computed, source.seconds
    )


def failure(candidate: BackboneCandidate, error: Exception) -> Skipped:
    """Return why a backbone could not be scored, in one line; the whole story goes to the log."""
    log.debug("%s could not be scored", candidate.name, exc_info=error)
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    reason = first if isinstance(error, FinetuneError) else f"{type(error).__name__}: {first}"
    return Skipped(candidate.name, reason, failed=not isinstance(error, ConfigError))
