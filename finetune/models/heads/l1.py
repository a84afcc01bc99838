"""L1-penalised logistic regression by FISTA, for many problems at once; most weights are exactly zero."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from finetune.models.heads.lbfgs import LbfgsSolution, PenalisedObjective, dot
from finetune.models.heads.logistic_loss import LogisticObjective

_ROUNDS = 50  # of adding columns
_ITERATIONS = 5000  # steps on a set of columns, at most


def largest_l1(objective: LogisticObjective) -> Tensor:
    """Return the least l1 (P,) at which all weights are zero: the steepest slope where only the bias is fitted."""
    bias = fit_bias(objective)
    return objective(bias)[1][:-1].abs().amax((0, 1))


def fit_bias(objective: LogisticObjective) -> Tensor:
    """Return weights (R + 1, K, P) of zero with the best bias, which is a logarithm of weighted frequencies."""
    targets, shares = objective.targets, objective.weights
    tiny = torch.finfo(shares.dtype).tiny
    positive, mass = targets.positive.T @ shares, targets.mass.T @ shares
    logits = positive.clamp(min=tiny).log() - (mass if targets.joint else mass - positive).clamp(min=tiny).log()
    bias = shares.new_zeros(objective.shape)
    bias[-1] = logits - logits.mean(0) if targets.joint else logits
    return bias


def minimise_l1(
    objective: LogisticObjective, l1: Tensor, l2: Tensor, *, tolerance: Tensor, start: Tensor | None = None
) -> LbfgsSolution:
    """Return the weights that minimise mean loss + l1 * sum of absolute weights + l2 / 2 * sum of squared weights.

    Columns whose slopes are below l1 stay zero; they are left out, and taken in where the solution without them shows
    that they do not.

    Args:
        objective: The mean losses of P problems; its columns must not be rotated.
        l1: Strengths (P,).
        l2: Strengths (P,), 0 for none.
        tolerance: How far the slopes (P,) of a solution may be from those of an optimum.
        start: Weights to start from (R + 1, K, P); None for zeros and the best bias.

    Source: Tibshirani et al. 2012, Strong Rules for Discarding Predictors, section 7 (checking what was left out).
    """
    weight = fit_bias(objective) if start is None else start.clone()
    problem = PenalisedObjective(objective, l2, tolerance)
    value, gradient = problem(weight)
    steps = torch.zeros_like(l1, dtype=torch.long)
    columns = torch.zeros_like(objective.design.curvature, dtype=torch.bool)
    for _ in range(_ROUNDS):
        used = (weight[:-1] != 0).any(2).any(1)
        wanted = used | (gradient[:-1].abs() > l1 - tolerance).any(2).any(1)
        if not objective.design.ready:
            wanted = torch.ones_like(wanted)
        if not (wanted & ~columns).any():
            break
        columns |= wanted
        weight, taken = solve_columns(problem, l1, weight, columns)
        steps += taken
        value, gradient = problem(weight)
    violation = optimality(weight, gradient, l1)
    return LbfgsSolution(weight, value + l1 * weight[:-1].abs().sum((0, 1)), steps, violation <= 2 * tolerance)


def solve_columns(problem: PenalisedObjective, l1: Tensor, weight: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights that are optimal on some columns (a mask (R,)) and kept on others, and the steps taken (P,)."""
    rows = torch.cat([columns, torch.ones_like(columns[:1])])
    design = problem.objective.design
    if design.ready:
        problem = replace(problem, objective=replace(problem.objective, design=design.pick(columns)))
    full = weight.clone()
    full[rows], taken = fista(problem, l1, weight[rows])
    return full, taken


@dataclass(frozen=True)
class _State:
    """Where accelerated descent stands: the weights, the point beyond them, its momentum and 1 / step size."""

    weight: Tensor
    ahead: Tensor
    momentum: Tensor
    steepness: Tensor

    def keep(self, problems: Tensor) -> "_State":
        """Return some of the problems."""
        return _State(*(part[..., problems] for part in vars(self).values()))


def fista(problem: PenalisedObjective, l1: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return optimal weights (R + 1, K, P) and the steps taken (P,), by FISTA with restarts.

    Source: Beck and Teboulle 2009, A Fast Iterative Shrinkage-Thresholding Algorithm, section 4 (with backtracking);
    O'Donoghue and Candes 2015, Adaptive Restart for Accelerated Gradient Schemes, section 3.2 (gradient scheme).
    """
    result, names = weight.clone(), torch.arange(len(l1), device=l1.device)
    taken = torch.zeros_like(names)
    state = _State(weight, weight, torch.ones_like(l1), steepness(problem))
    for count in range(1, _ITERATIONS + 1):
        state, gradient = fista_step(problem, l1, state)
        done = (optimality(state.weight, gradient, l1) <= problem.tolerance) | (count == _ITERATIONS)
        if 8 * int(done.sum()) >= len(done):
            result[:, :, names[done]], taken[names[done]] = state.weight[:, :, done], count
            if done.all():
                break
            problem, state, l1, names = problem.keep(~done), state.keep(~done), l1[~done], names[~done]
    return result, taken


def fista_step(problem: PenalisedObjective, l1: Tensor, state: _State) -> tuple[_State, Tensor]:
    """Return the state after one step, and the gradient at its weights."""
    value, gradient = problem(state.ahead)
    steep = state.steepness
    while True:
        weight = soft_threshold(state.ahead - gradient / steep, l1 / steep)
        step = weight - state.ahead
        after, slopes = problem(weight)
        bound = value + dot(gradient, step) + steep / 2 * dot(step, step)
        above = after > bound + 8 * torch.finfo(bound.dtype).eps * value.abs()
        if not above.any():
            break
        steep = torch.where(above, 2 * steep, steep)
    forward = weight - state.weight
    restart = dot(step, forward) < 0
    momentum = torch.where(restart, 1.0, (1 + (1 + 4 * state.momentum**2).sqrt()) / 2)
    push = torch.where(restart, 0.0, (state.momentum - 1) / momentum)
    return _State(weight, weight + push * forward, momentum, steep), slopes


def soft_threshold(weight: Tensor, amount: Tensor) -> Tensor:
    """Return weights (R + 1, K, P) moved towards zero by an amount (P,), and at zero where they would pass it."""
    inner = weight[:-1]
    return torch.cat([inner.sign() * (inner.abs() - amount).clamp(min=0), weight[-1:]])


def optimality(weight: Tensor, gradient: Tensor, l1: Tensor) -> Tensor:
    """Return how far the slopes of problems (P,) are from those of an optimum: the largest violation."""
    inner, slopes = weight[:-1], gradient[:-1]
    resting = (slopes.abs() - l1).clamp(min=0)
    moved = (slopes + l1 * inner.sign()).abs()
    free = gradient[-1:].abs()
    return torch.cat([torch.where(inner == 0, resting, moved), free]).amax((0, 1))


def steepness(problem: PenalisedObjective) -> Tensor:
    """Return a first guess of how steep the gradient can get (P,), from some steps of the power method."""
    design, count = problem.objective.design, len(problem.objective.weights)
    vector = torch.ones(len(design.curvature) + 1, dtype=problem.l2.dtype, device=problem.l2.device)
    length = vector.norm()
    for _ in range(5):
        vector, total = vector / length, torch.zeros_like(vector)
        for rows in problem.objective.pieces():
            block = design.rows(rows.start, rows.stop)
            total += block.T @ (block @ vector) / count
        vector, length = total, total.norm()
    steep: Tensor = 0.25 * length + problem.l2
    return steep
