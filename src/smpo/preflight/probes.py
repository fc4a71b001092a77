"""The table of probes: what is checked for which stages; cheap checks come first."""

from smpo.preflight import data, machine, models
from smpo.preflight.findings import Check, Probe

GENERATING = ("sample", "generate")
TRAINING = ("invert", "train")
COMPUTING = (*GENERATING, "score", "cache", *TRAINING, "evaluate")
EVERYWHERE = (*COMPUTING, "pairs", "label", "report")


def _probe(subject: str, stages: tuple[str, ...], check: Check, *after: str) -> Probe:
    return Probe(subject, frozenset(stages), check, frozenset(after))


PROBES: tuple[Probe, ...] = (
    _probe("folders", EVERYWHERE, machine.folders),
    _probe("processes", ("train",), machine.processes),
    _probe("device", COMPUTING, machine.devices),
    _probe("packages", TRAINING, machine.packages),
    _probe("prompts", GENERATING, data.prompts),
    _probe("pairs", ("pairs",), data.pairs),
    _probe("held-out pairs", ("evaluate",), data.held_out),
    _probe("model", (*GENERATING, "cache", *TRAINING), models.base),
    _probe("timesteps", (*GENERATING, *TRAINING), models.timesteps, "model"),
    _probe("adapters", TRAINING, models.adapters, "model"),
    _probe("compared", ("generate",), models.compared),
    _probe("scorers", ("score", "evaluate"), models.scorers, "device", "prompts"),
    _probe(
        "disk, memory", ("cache", *TRAINING), machine.cost, "folders", "processes", "packages", "pairs", "model",
        "timesteps", "adapters",
    ),
)
