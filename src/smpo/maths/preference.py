"""Preference losses over the implicit margin of a pair (Eq. 9, 15, 16). Unreduced: shape (B,).

beta is the "code beta" of the Diffusion-DPO family throughout: errors are *means* over latent elements and the logit
carries an explicit 1/2. A paper's sum-reduced beta is beta / (2 D), D = 16384 for SD1.5 at 512 px (METHODS 1.2).
"""

import torch.nn.functional as F
from torch import Tensor

from smpo.checks import check_batch, check_positive, check_same_shape
from smpo.maths.smoothing import pair_weight
from smpo.records import PairErrors


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over all but the leading axes (n,) of (prediction - target)^2, float32, shape (n,).

    Float32 whatever comes in: in fp16 the rounding of an error near 0.3 moves the logit by 0.3 (METHODS 1.7).
    """
    check_same_shape(prediction=prediction, target=target)
    return (prediction.float() - target.float()).square().flatten(1).mean(dim=1)


def implicit_margin(errors: PairErrors) -> Tensor:
    """-[(L_w - L_ref_w) - (L_l - L_ref_l)] of each pair (inner difference of Eq. 16), shape (B,).

    Positive where the policy, more than the reference, fits the winner better than the loser.

    Raises:
        ValueError: the errors lack the losers or the reference.
    """
    if errors.policy_l is None or errors.reference_w is None or errors.reference_l is None:
        raise ValueError("implicit_margin needs winner and loser errors of policy and reference, got some missing")
    check_batch(w=errors.policy_w, l=errors.policy_l, ref_w=errors.reference_w, ref_l=errors.reference_l)
    return -((errors.policy_w - errors.reference_w) - (errors.policy_l - errors.reference_l))


def preference_logit(margin: Tensor, weight: Tensor, *, beta: float) -> Tensor:
    """weight * beta / 2 * margin: the argument of the log-sigmoid in Eq. 15, shape (B,)."""
    check_batch(margin=margin, weight=weight)
    check_positive(beta=beta)
    return 0.5 * beta * weight * margin


def smpo_loss(margin: Tensor, p_winner: Tensor, *, beta: float, gamma: float) -> Tensor:
    """SmPO loss of each pair (Lu et al. 2025, Eq. 15-16), shape (B,).

    -log sigmoid((2 alpha - gamma) beta / 2 margin) with alpha = gamma p. Only the product beta * gamma matters.

    Args:
        margin: implicit margin, shape (B,).
        p_winner: alpha / gamma, in [0, 1], shape (B,); 1/2 gives no gradient.
        beta: code beta, > 0.
        gamma: sensitivity, > 0.

    Raises:
        ValueError: shapes differ or are not (B,); beta or gamma is not positive.
    """
    return -F.logsigmoid(preference_logit(margin, pair_weight(p_winner, gamma=gamma), beta=beta))


def dpo_loss(margin: Tensor, *, beta: float) -> Tensor:
    """Diffusion-DPO loss of each pair (Wallace et al. 2024, Eq. 14), shape (B,): -log sigmoid(beta / 2 margin)."""
    check_batch(margin=margin)
    check_positive(beta=beta)
    return -F.logsigmoid(0.5 * beta * margin)
