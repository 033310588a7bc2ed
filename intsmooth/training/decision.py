"""Logits in int8 that decide as the float ones: what may be left out of them, what range they need, who wins a tie.

Only differences between logits decide, and only those between the largest. How small a difference matters is judged on
samples: `closeness` weighs each by how near its two largest logits are to each other.
"""

import torch

_RIDGE = 0.3  # of the features' mean second moment: weights that stay small are rounded in finer steps
_SPARE = 1 / 4  # of the deciding range, on either side, for images that are not among the samples


def closeness(logits: torch.Tensor) -> torch.Tensor:
    """(N,) exp(-3 (largest - second) / median of that): 1 where a sample is undecided, near 0 where it is clear."""
    largest, second = logits.topk(2, 1).values.unbind(1)
    margin = largest - second
    return torch.exp(-3 * margin / margin.median().clamp_min(1e-12))


def common_part(features: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(weights (F,), bias): the linear function of the features that is nearest to the mean of the two largest logits.

    Taken off every class it changes no decision, and what is left of the largest logits needs a smaller range, hence
    finer steps. Ridge regression, on samples by their closeness. features: (N, F); logits: (N, classes).
    """
    share = closeness(logits).double()
    share = share / share.sum()
    level = logits.topk(2, 1).values.mean(1).double()
    centre, middle = share @ features.double(), share @ level
    spread = (features - centre) * share.sqrt()[:, None]
    moments = spread.T @ spread
    moments += (_RIDGE * moments.diagonal().mean() + 1e-12) * torch.eye(len(moments), device=moments.device)
    weights = torch.linalg.solve(moments, spread.T @ ((level - middle) * share.sqrt()))
    return weights.to(features.dtype), (middle - centre @ weights).to(features.dtype)


def deciding_range(logits: torch.Tensor) -> tuple[float, float]:
    """The range of values (N, classes) in which it is decided which is largest, with a quarter to spare on either side.

    Above it lies at most the largest logit of a sample, below it never the largest: both may saturate and the decision
    stays, in finer steps than all logits would need. It holds 0, as the zero point of an int8 tensor must.
    """
    largest, second = logits.topk(2, 1).values.unbind(1)
    lowest, highest = sorted((float(largest.min()), float(second.max())))
    width = max(highest - lowest, float(logits.max() - logits.min()) / 4, 1e-6)
    return min(lowest - width * _SPARE, 0.0), max(highest + width * _SPARE, 0.0)


def tie_offsets(logits: torch.Tensor, step: float) -> torch.Tensor:
    """What to add to each class's logit (classes,) because a tie goes to the lowest index.

    Rounded to steps, class i wins against j > i from half a step below already: an image between the two would be moved
    towards i under every draw of the noise. Half a step more for j than for i makes it fair. No offsets can do so for
    all pairs of classes at once; these are the least-squares ones, pairs weighed by the closeness of the samples between
    them, and a little each so that all have a say.
    """
    classes = logits.shape[1]
    pairs = logits.topk(2, 1).indices.sort(1).values
    near = torch.zeros(classes, classes, dtype=torch.float64, device=logits.device)
    near.index_put_((pairs[:, 0], pairs[:, 1]), closeness(logits).double(), accumulate=True)
    near = near + near.T
    near += near.mean() / 10
    near.fill_diagonal_(0)
    wish = (near.tril().sum(1) - near.triu().sum(1)) * step / 2
    return (torch.linalg.pinv(near.sum(1).diag() - near, hermitian=True) @ wish).to(logits.dtype)
