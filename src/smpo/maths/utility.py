"""Utilities of single images against a reference point (Diffusion-KTO, Li et al. 2024). Unreduced: shape (B,).

beta multiplies the difference of mean errors without the 1/2 of the pairwise losses, as in the released code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from smpo.core.checks import check_batch, check_known, check_positive
from smpo.core.records import PairErrors

UTILITIES = ("kahneman-tversky", "loss-averse", "risk-seeking")


def implicit_reward(errors: PairErrors) -> Tensor:
    """g = -(L - L_ref) of the image that each example shows, shape (B,): positive where the policy fits it better.

    Raises:
        ValueError: the errors lack the reference.
    """
    if errors.reference_w is None:
        raise ValueError("implicit_reward needs errors of policy and reference, got no reference's")
    check_batch(policy=errors.policy_w, reference=errors.reference_w)
    return -(errors.policy_w - errors.reference_w)


def reference_point(rewards: Tensor) -> Tensor:
    """k = max(0, mean of g) over all images of an optimizer step, shape (), without gradient."""
    return rewards.detach().mean().clamp(min=0)


def kto_logit(reward: Tensor, p_winner: Tensor, point: Tensor, *, beta: float) -> Tensor:
    """s beta (g - k) of each image, shape (B,): s = +1 for a desirable image (p > 1/2), -1 for an undesirable one.

    Args:
        reward: g, shape (B,).
        p_winner: probability of the image being the better of its pair, shape (B,).
        point: k >= 0, shape ().
        beta: > 0; the paper's 5000 and the code's 1000 stand as they are.
    """
    check_batch(reward=reward, p_winner=p_winner)
    check_positive(beta=beta)
    return torch.where(p_winner > 0.5, beta, -beta) * (reward - point)


def kto_loss(logit: Tensor, *, utility: str) -> Tensor:
    """Minus the utility of x = s beta (g - k), up to a constant, shape (B,).

    kahneman-tversky: 1 - sigmoid(x), steep near the reference point and flat at both ends.
    loss-averse: -log sigmoid(x), concave utility: what is far below the point weighs most.
    risk-seeking: log sigmoid(-x), convex utility: what is far above the point weighs most.

    Raises:
        ConfigError: another utility.
    """
    check_batch(logit=logit)
    check_known(utility, UTILITIES, what="objective.utility")
    if utility == "kahneman-tversky":
        return torch.sigmoid(-logit)
    return -F.logsigmoid(logit) if utility == "loss-averse" else F.logsigmoid(-logit)
