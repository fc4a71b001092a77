"""How scorers are run. Imports no torch, so that recipes load at once."""

from pydantic import Field

from smpo.core.sections import Section


class ScoringOptions(Section):
    """How images are scored. Other batches or blocks move a float32 score by 1e-6 at most, other workers by nothing."""

    batch_size: int = Field(32, gt=0, description="images a call of a scorer")
    workers: int | None = Field(None, ge=0, description="decoding processes; None: one per core, 8 at most")
    block_size: int = Field(256, gt=0, description="rows per file, which is what an interruption can lose")
