"""How networks, gradients and optimizer state lie over the processes of a run.

`Replicated` (DDP) keeps everything whole on every process. `FSDP2` gives each process its rows of every tensor, on its
device or in host memory. `from_environment` picks the one that the launcher asks for.
"""

from smpo.training.parallel.environment import from_environment
from smpo.training.parallel.replicated import Replicated

__all__ = ["Replicated", "from_environment"]
