"""SmPO-Diffusion: smoothed preference optimization of text-to-image diffusion models, and its baselines."""

__version__ = "0.1.0"
