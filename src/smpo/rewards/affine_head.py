"""The head that ImageReward and the LAION aesthetic predictor share: five linear layers without activations."""

from torch import Tensor, nn

from smpo.rewards.weights import Tensors

LINEAR = ("0", "2", "4", "6", "7")  # between them the published modules have dropout, which scoring skips


class AffineHead(nn.Module):
    """A score from features; its widths are those of the published tensors `layers.N.weight`."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        shapes = {n: tensors[f"layers.{n}.weight"].shape for n in LINEAR if f"layers.{n}.weight" in tensors}
        self.layers = nn.ModuleDict({n: nn.Linear(inner, outer) for n, (outer, inner) in shapes.items()})

    def forward(self, features: Tensor) -> Tensor:
        """Score of each row of (B, D) features, shape (B,)."""
        for layer in self.layers.values():
            features = layer(features)
        return features[:, 0]
