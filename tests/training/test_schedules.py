"""Schedules follow their closed forms, and torch's scheduler follows them and can be stored."""

import io
import math

import pytest
import torch
from configured import settings_for
from hypothesis import given
from hypothesis import strategies as st
from timm.optim import Lookahead

from finetune.config.settings.training_groups import Schedule
from finetune.errors import ConfigError
from finetune.training.schedules import build_scheduler, rate_factor

KINDS = ("cosine", "linear", "constant")


def make_optimizer(*rates: float) -> torch.optim.Optimizer:
    """Return SGD over one parameter per rate."""
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates])


def rates_of(schedule: Schedule, total_steps: int, lr: float = 1.0) -> list[float]:
    """Return the rate of each step."""
    optimizer = make_optimizer(lr)
    scheduler = build_scheduler(optimizer, total_steps, schedule)
    rates = []
    for _ in range(total_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("kind", KINDS)
def test_warmup_is_linear_from_0_to_1(kind: str) -> None:
    schedule = settings_for(Schedule, kind, warmup=0.2, final=0.1)
    assert [rate_factor(schedule, progress) for progress in (0.0, 0.05, 0.1, 0.2)] == pytest.approx([0, 0.25, 0.5, 1])


def test_cosine_is_half_a_cosine_down_to_final() -> None:
    schedule = settings_for(Schedule, "cosine", warmup=0.0, final=0.2)
    for progress in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert rate_factor(schedule, progress) == pytest.approx(0.2 + 0.8 * math.cos(math.pi * progress / 2) ** 2)


def test_cycles_repeat_the_whole_way() -> None:
    once, thrice = settings_for(Schedule, "cosine", 0.2, 0.1), settings_for(Schedule, "cosine", 0.2, 0.1, cycles=3)
    for cycle in range(3):
        for progress in (0.0, 0.1, 0.3, 0.9):
            assert rate_factor(thrice, (cycle + progress) / 3) == pytest.approx(rate_factor(once, progress))
    assert rate_factor(thrice, 1.0) == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="schedule.cycles=0"):
        settings_for(Schedule, cycles=0)


def test_linear_goes_straight_down_to_final() -> None:
    schedule = settings_for(Schedule, "linear", warmup=0.5, final=0.2)
    assert [rate_factor(schedule, progress) for progress in (0.5, 0.75, 1.0)] == pytest.approx([1, 0.6, 0.2])


def test_constant_stays_at_1_after_the_warmup() -> None:
    schedule = settings_for(Schedule, "constant", warmup=0.25, final=0.0)
    assert [rate_factor(schedule, progress) for progress in (0.25, 0.5, 1.0)] == [1, 1, 1]


@given(
    kind=st.sampled_from(KINDS),
    warmup=st.floats(0, 0.9),
    final=st.floats(0, 1),
    progress=st.floats(0, 1),
)
def test_factor_is_a_share_that_never_rises_after_the_warmup(
    kind: str, warmup: float, final: float, progress: float
) -> None:
    schedule = settings_for(Schedule, kind, warmup, final)
    assert 0 <= rate_factor(schedule, progress) <= 1
    later = min(1.0, progress + 0.05)
    if progress >= warmup:
        assert rate_factor(schedule, later) <= rate_factor(schedule, progress) + 1e-12


def test_each_step_has_the_rate_of_its_middle() -> None:
    schedule = settings_for(Schedule, "cosine", warmup=0.1, final=0.0)
    expected = [0.5 * rate_factor(schedule, (step + 0.5) / 20) for step in range(20)]
    assert rates_of(schedule, 20, lr=0.5) == pytest.approx(expected)


@pytest.mark.parametrize("total_steps", [1, 2, 7])
def test_no_step_of_a_short_phase_is_wasted(total_steps: int) -> None:
    assert min(rates_of(settings_for(Schedule, "cosine", warmup=0.1, final=0.0), total_steps)) > 0


def test_steps_past_the_end_keep_the_final_rate() -> None:
    optimizer = make_optimizer(1.0)
    scheduler = build_scheduler(optimizer, 2, settings_for(Schedule, "linear", warmup=0.0, final=0.25))
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_groups_keep_the_ratio_of_their_rates() -> None:
    optimizer = make_optimizer(1.0, 0.01)
    scheduler = build_scheduler(optimizer, 10, settings_for(Schedule))
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    deep, shallow = (group["lr"] for group in optimizer.param_groups)
    assert shallow / deep == pytest.approx(0.01)


def test_state_loads_with_weights_only_and_goes_on_where_it_was() -> None:
    schedule = settings_for(Schedule, "cosine", warmup=0.3, final=0.1)
    first, second = make_optimizer(1.0), make_optimizer(1.0)
    scheduler = build_scheduler(first, 10, schedule)
    for _ in range(4):
        first.step()
        scheduler.step()
    buffer = io.BytesIO()
    torch.save({"scheduler": scheduler.state_dict(), "optimizer": first.state_dict()}, buffer)
    buffer.seek(0)
    stored = torch.load(buffer, weights_only=True)
    resumed = build_scheduler(second, 10, schedule)
    second.load_state_dict(stored["optimizer"])
    resumed.load_state_dict(stored["scheduler"])
    for optimizer, each in ((first, scheduler), (second, resumed)):
        optimizer.step()
        each.step()
    assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]


def test_lookahead_of_timm_can_be_scheduled() -> None:
    optimizer = Lookahead(make_optimizer(1.0))
    scheduler = build_scheduler(optimizer, 4, settings_for(Schedule, "linear", warmup=0.0, final=0.0))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1 - 0.125)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1 - 0.375)


def test_misspelt_kind_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        settings_for(Schedule, "cosin")


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"warmup": -0.1}, {"final": 1.5}, {"final": -1.0}])
def test_shares_out_of_range_are_errors(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"schedule.{next(iter(options))}"):
        settings_for(Schedule, **options)
