"""Preference losses over the implicit margin of a pair (Eq. 9, 15, 16) and their relatives. Unreduced: shape (B,).

beta is the "code beta" of the Diffusion-DPO family throughout: errors are *means* over latent elements and the logit
carries an explicit 1/2. A paper's sum-reduced beta is beta / (2 D), D = 16384 for SD1.5 at 512 px (METHODS 1.2).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from smpo.core.checks import check_batch, check_positive, check_same_shape
from smpo.core.records import PairErrors
from smpo.maths.smoothing import pair_weight


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


def ipo_loss(margin: Tensor, p_winner: Tensor, *, beta: float) -> Tensor:
    """IPO loss of each pair (Azar et al. 2024), shape (B,): (u - (p - 1/2))^2 with u = beta / 2 margin.

    At p = 1 this is (beta / 2)^2 (margin - 1 / beta)^2, so its minimiser is that of diffusers' LoRA-DPO scripts,
    (margin - 1 / (2 beta_d))^2 with beta_d = beta / 2. The factor brings the slope near DPO's, twice as steep at the
    start: -beta / 2 where DPO has -beta / 4 (beta = 2000: 1000 and 500), which AdamW undoes but for clipping. With soft
    labels it is the hard losses of both outcomes, weighed by p and 1 - p, less the constant p (1 - p).

    Args:
        margin: implicit margin, shape (B,).
        p_winner: probability of the winner, in [0, 1], shape (B,).
        beta: code beta, > 0.
    """
    check_batch(margin=margin, p_winner=p_winner)
    check_positive(beta=beta)
    return (0.5 * beta * margin - (p_winner - 0.5)).square()


def cdpo_loss(margin: Tensor, p_winner: Tensor, *, beta: float) -> Tensor:
    """Conservative DPO loss of each pair (Mitchell 2023), shape (B,): cross-entropy with a soft label.

    -p log sigmoid(u) - (1 - p) log sigmoid(-u) with u = beta / 2 margin; p = 1 is DPO. Unlike a weight on the margin it
    has a finite minimum, at sigmoid(u) = p.

    Args:
        margin: implicit margin, shape (B,).
        p_winner: probability of the winner, in [0, 1], shape (B,).
        beta: code beta, > 0.
    """
    check_batch(margin=margin, p_winner=p_winner)
    check_positive(beta=beta)
    u = 0.5 * beta * margin
    return -p_winner * F.logsigmoid(u) - (1 - p_winner) * F.logsigmoid(-u)


def linear_weight(margin: Tensor, *, beta: float, eta: float) -> Tensor:
    """clip(1/2 - 0.2 beta margin, eta, 1 - eta): the slope of Linear-DPO's released loss, shape (B,), no gradient.

    It stands where DPO has sigmoid(-u) = 1/2 - u / 4 + ..., u = beta / 2 margin; with 0.2 beta margin = 0.4 u the line
    is steeper than DPO's tangent.

    Args:
        margin: implicit margin, shape (B,).
        beta: code beta, > 0.
        eta: smallest slope, in [0, 1/2].
    """
    check_batch(margin=margin)
    check_positive(beta=beta)
    return (0.5 - 0.2 * beta * margin.detach()).clamp(eta, 1 - eta)


def linear_loss(errors: PairErrors, p_winner: Tensor, *, beta: float, eta: float) -> Tensor:
    """Linear-DPO's loss of each pair, as its code has it (arXiv 2605.21123), shape (B,): slope times (L_w - L_l).

    The slope is `linear_weight`, a constant to the gradient: d loss / d L_w = slope, d loss / d L_l = -slope, without
    a factor beta. The value says little, for it moves with the slope. With soft labels the slope is the mean of the
    hard ones of both outcomes, p slope - (1 - p) (1 - slope) = slope - (1 - p): not in the code, which has none.

    Source: github.com/WhynotChen0105/Linear-DPO, commit 71b7f73, train/train_sd3_dpo.py, lines 1214-1218.

    Args:
        errors: of winner and loser under policy and reference, shape (B,) each.
        p_winner: probability of the winner, in [0, 1], shape (B,).
        beta: code beta, > 0.
        eta: smallest slope of a hard label, in [0, 1/2].

    Raises:
        ValueError: the errors lack the losers or the reference; shapes differ.
    """
    margin = implicit_margin(errors)
    check_batch(margin=margin, p_winner=p_winner)
    assert errors.policy_l is not None  # or there were no margin
    slope = linear_weight(margin, beta=beta, eta=eta) - (1 - p_winner)
    return slope * (errors.policy_w - errors.policy_l)


def mapo_ratio(error: Tensor, *, snr: float) -> Tensor:
    """f(L) = sL / (e^{sL} - 1) of an error L >= 0, s the signal-to-noise value (MaPO), shape (B,); falls from f(0) = 1.

    Written with e^{-sL}, which cannot overflow, and as 1 - sL / 2 below sL = 1e-4, where the quotient tends to 0 / 0.
    """
    check_positive(snr=snr)
    z = snr * error
    small = z < 1e-4
    away = torch.where(small, 1.0, z)  # keeps 0 / 0 out of the gradient of the branch not taken
    return torch.where(small, 1 - z / 2, away * torch.exp(-away) / -torch.expm1(-away))


def mapo_margin(errors: PairErrors, *, snr: float) -> Tensor:
    """f(L_w) - f(L_l) of each pair (MaPO), shape (B,): positive where the policy fits the winner better. No reference.

    Raises:
        ValueError: the errors lack the losers.
    """
    if errors.policy_l is None:
        raise ValueError("mapo_margin needs winner and loser errors of the policy, got no loser's")
    check_batch(w=errors.policy_w, l=errors.policy_l)
    return mapo_ratio(errors.policy_w, snr=snr) - mapo_ratio(errors.policy_l, snr=snr)


def mapo_loss(errors: PairErrors, *, beta: float, temperature: float, snr: float) -> Tensor:
    """MaPO loss of each pair (Hong et al. 2024, released code), shape (B,): L_w - beta log sigmoid(T (f_w - f_l)).

    Args:
        errors: of winner and loser under the policy, shape (B,) each.
        beta: weight of the margin's loss, > 0; no KL strength.
        temperature: T, > 0.
        snr: s of `mapo_ratio`, > 0.
    """
    check_positive(beta=beta, temperature=temperature)
    return errors.policy_w - beta * F.logsigmoid(temperature * mapo_margin(errors, snr=snr))
