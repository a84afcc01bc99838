"""L-BFGS: logistic regression solved to its optimum, many problems at once in one product per evaluation."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from finetune.models.heads.logistic_loss import LogisticObjective

MEMORY = 2**28  # numbers held for problems solved together
SUFFICIENT = 1e-4  # share of the expected decrease that a step must reach
_SEARCHES = 30
_KEPT = 8  # steps from which curvature is guessed


@dataclass(frozen=True)
class LbfgsSolution:
    """Weights of P problems.

    Attributes:
        weight: Weights, the bias in the last row (R + 1, K, P).
        value: Penalised mean loss (P,).
        iterations: Steps taken (P,).
        converged: Whether the gradient reached the tolerance (P,).
    """

    weight: Tensor
    value: Tensor
    iterations: Tensor
    converged: Tensor

    @classmethod
    def empty(cls, objective: LogisticObjective) -> "LbfgsSolution":
        """Return a solution to be filled in."""
        weights, count = objective.weights, objective.shape[2]
        steps = torch.zeros(count, dtype=torch.long, device=weights.device)
        return cls(weights.new_zeros(objective.shape), weights.new_zeros(count), steps, steps > 0)

    def put(self, problems: Tensor, part: "LbfgsSolution") -> None:
        """Fill in some of the problems."""
        for own, new in zip(vars(self).values(), vars(part).values(), strict=True):
            own[..., problems] = new

    def keep(self, problems: Tensor) -> "LbfgsSolution":
        """Return some of the problems."""
        return LbfgsSolution(*(values[..., problems] for values in vars(self).values()))


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Return inner products (P,) of tensors (R, K, P)."""
    return (one * other).sum((0, 1))


@dataclass(frozen=True)
class PenalisedObjective:
    """An objective with l2 / 2 times the sum of squared weights; the bias is free.

    Attributes:
        objective: The mean losses.
        l2: Strengths (P,).
        tolerance: Norms of the gradient (P,) at which the weights have arrived.
    """

    objective: LogisticObjective
    l2: Tensor
    tolerance: Tensor

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (P,) and gradients (R + 1, K, P)."""
        value, gradient = self.objective(weight)
        gradient[:-1] += self.l2 * weight[:-1]
        return value + 0.5 * self.l2 * dot(weight[:-1], weight[:-1]), gradient

    def keep(self, problems: Tensor) -> "PenalisedObjective":
        """Return some of the problems."""
        return PenalisedObjective(self.objective.keep(problems), self.l2[problems], self.tolerance[problems])

    def inverse_curvature(self, weight: Tensor) -> Tensor:
        """Return about what the inverse second derivative is on its diagonal (R + 1, 1, P), at some weights.

        It is exact where the columns lie along the principal axes and all images are as uncertain as their mean.
        """
        curvature = self.objective.design.curvature
        loss = torch.cat([curvature, torch.ones_like(curvature[:1])])[:, None] * self.objective.uncertainty(weight)
        diagonal = loss + self.l2
        diagonal[-1] = loss[-1]
        return (1 / diagonal.clamp(min=1e-12 * float(loss.max())))[:, None]


@dataclass
class _LbfgsHistory:
    """The last steps and changes of the gradient, from which L-BFGS guesses the curvature.

    Attributes:
        inverse: First guess of the inverse second derivative (R + 1, 1, P).
    """

    inverse: Tensor
    pairs: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    scale: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Trust the first guess at first."""
        self.scale = torch.ones_like(self.inverse[0, 0])

    def add(self, step: Tensor, change: Tensor) -> None:
        """Take in a step; one along which nothing bends (P,) is given no influence."""
        bend, length = dot(step, change), dot(change, self.inverse * change)
        bends = bend > torch.finfo(bend.dtype).eps * (dot(step, step) * dot(change, change)).sqrt()
        self.scale = torch.where(bends, bend / torch.where(bends, length, 1.0), self.scale)
        self.pairs.append((step, change, torch.where(bends, 1 / torch.where(bends, bend, 1.0), 0.0)))
        del self.pairs[:-_KEPT]

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the direction (R + 1, K, P) to go in."""
        rest, factors = gradient.clone(), []
        for step, change, share in reversed(self.pairs):
            factors.append(share * dot(step, rest))
            rest.addcmul_(factors[-1], change, value=-1)
        rest *= self.scale * self.inverse
        for (step, change, share), factor in zip(self.pairs, reversed(factors), strict=True):
            rest.addcmul_(step, factor - share * dot(change, rest))
        return rest.neg_()

    def keep(self, problems: Tensor) -> None:
        """Forget all but some of the problems."""
        self.inverse, self.scale = self.inverse[:, :, problems], self.scale[problems]
        self.pairs = [(s[:, :, problems], y[:, :, problems], r[problems]) for s, y, r in self.pairs]


def minimise_lbfgs(
    objective: LogisticObjective, l2: Tensor, *, tolerance: Tensor, start: Tensor | None = None, iterations: int = 1000
) -> LbfgsSolution:
    """Return the weights that minimise each problem's mean loss plus l2 / 2 times its sum of squared weights.

    Problems are solved in groups that fit into memory; one that has converged leaves its group.

    Args:
        objective: The mean losses of P problems.
        l2: Strengths (P,).
        tolerance: Largest norm of the gradient of a problem that has converged (P,). But for the bias, its value is
            then above the least by at most tolerance squared / (2 * l2).
        start: Weights to start from (R + 1, K, P); None for zeros.
        iterations: Most steps.

    Source: Nocedal and Wright 2006, Numerical Optimization, algorithm 7.4.
    """
    rows, classes, count = objective.shape
    solution = LbfgsSolution.empty(objective)
    if start is not None:
        solution.weight.copy_(start)
    size = max(1, MEMORY // (rows * classes * (2 * _KEPT + 8)))
    for group in torch.split(torch.arange(count, device=l2.device), size):
        problem = PenalisedObjective(objective.keep(group), l2[group], tolerance[group])
        solve_group(problem, group, solution, iterations)
    return solution


def solve_group(problem: PenalisedObjective, names: Tensor, solution: LbfgsSolution, iterations: int) -> None:
    """Solve problems together from where the solution is, and fill in their places, `names` (P,), of it."""
    weight = solution.weight[:, :, names]
    value, gradient = problem(weight)
    guess = _LbfgsHistory(problem.inverse_curvature(weight))
    stuck = torch.zeros_like(value, dtype=torch.bool)
    for count in range(iterations + 1):
        converged = dot(gradient, gradient).sqrt() <= problem.tolerance
        done = converged | stuck | (count == iterations)
        if 8 * int(done.sum()) >= len(done):
            parted = LbfgsSolution(weight, value, torch.full_like(names, count), converged)
            solution.put(names[done], parted.keep(done))
            if done.all():
                return
            rest = ~done
            problem, names, stuck, value = problem.keep(rest), names[rest], stuck[rest], value[rest]
            weight, gradient = weight[:, :, rest], gradient[:, :, rest]
            guess.keep(rest)
        direction = guess.direction(gradient)
        step, value, new_gradient, moved = line_search(problem, weight, value, gradient, direction)
        guess.add(step, new_gradient - gradient)
        weight, gradient, stuck = weight + step, new_gradient, ~moved


def line_search(
    problem: PenalisedObjective, weight: Tensor, value: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a step (R + 1, K, P) of each problem with the value (P,) and gradient after it, and whether it moved (P,).

    A step is shortened until the value decreases enough or, where rounding hides the decrease, until the slope does.

    Source: Nocedal and Wright 2006, Numerical Optimization, algorithm 3.1; Hager and Zhang 2005, A New Conjugate
    Gradient Method with Guaranteed Descent and an Efficient Line Search, section 4 (approximate Wolfe conditions).
    """
    slope = dot(gradient, direction)
    new_value, new_gradient = problem(weight + direction)
    length = (slope < 0).to(value)
    good = acceptable(value, new_value, slope, dot(new_gradient, direction), length) & (slope < 0)
    if good.all():  # as nearly always
        return direction, new_value, new_gradient, good
    length = torch.where(good, length, length * shorter(value, new_value, slope, length))
    step = torch.where(good, direction, 0.0)
    new_value, new_gradient = torch.where(good, new_value, value), torch.where(good, new_gradient, gradient)
    rest = (~good & (slope < 0)).nonzero().squeeze(1)
    for _ in range(_SEARCHES):
        if not len(rest):
            break
        along = direction[:, :, rest]
        tried = length[rest] * along
        after, slopes = problem.keep(rest)(weight[:, :, rest] + tried)
        fine = acceptable(value[rest], after, slope[rest], dot(slopes, along), length[rest])
        found = rest[fine]
        step[:, :, found], new_gradient[:, :, found] = tried[:, :, fine], slopes[:, :, fine]
        new_value[found], good[found] = after[fine], True
        length[rest] *= shorter(value[rest], after, slope[rest], length[rest])
        rest = rest[~fine]
    return step, new_value, new_gradient, good


def acceptable(before: Tensor, after: Tensor, slope: Tensor, slope_after: Tensor, length: Tensor) -> Tensor:
    """Return which steps (P,) decrease the value enough, or decrease the slope where the value is flat in rounding."""
    decreased = after <= before + SUFFICIENT * length * slope
    rounding = 8 * torch.finfo(before.dtype).eps * before.abs()
    flat = (after <= before + rounding) & (slope_after <= (2 * SUFFICIENT - 1) * slope) & (slope_after >= 0.9 * slope)
    return decreased | flat


def shorter(before: Tensor, after: Tensor, slope: Tensor, length: Tensor) -> Tensor:
    """Return by what share (P,) to shorten steps: to the lowest point of the parabola, within a tenth and a half."""
    bend = after - before - length * slope
    share = -0.5 * length * slope / bend
    return torch.where(share.isfinite(), share, 0.1).clamp(0.1, 0.5)
