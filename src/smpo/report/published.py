"""The paper's own numbers, shown beside ours. Which of our models is which of the paper's is said, never guessed."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from smpo.core.checks import check_known
from smpo.core.sections import Section

FILE = Path(__file__).with_name("published.json")
TRAINED = "trained"


class PublishedNumbers(Section):
    """Rows and columns of the paper (Lu et al. 2025, Tables 2, 8 and 9) that stand for ours."""

    prompts: str = Field(description="hpdv2, parti_prompts or pickapic_v2_test")
    models: dict[str, str] = Field(description=(
        "our set -> the paper's model, such as sd15/dpo or sdxl/smpo; `trained` is the recipe's own, whatever its name"
    ))
    scorers: dict[str, str] = Field(description="our scorer -> the paper's metric, such as pickscore or hpsv2_1")

    def named(self, trained: str) -> "PublishedNumbers":
        """These numbers with the set that the recipe trained under its name."""
        models = {trained if ours == TRAINED else ours: theirs for ours, theirs in self.models.items()}
        return self.model_copy(update={"models": models})

    def check(self, models: tuple[str, ...], scorers: tuple[str, ...]) -> None:
        """Raise ConfigError unless every key and value names something that exists."""
        content = _content()
        check_known(self.prompts, content["prompts"], what="report.published.prompts")
        for ours, theirs in self.models.items():
            check_known(ours, models, what="set in report.published.models")
            check_known(theirs, content["prompts"][self.prompts], what=f"model of the paper on {self.prompts}")
        for ours, theirs in self.scorers.items():
            check_known(ours, scorers, what="scorer in report.published.scorers")
            check_known(theirs, content["scale"], what="metric of the paper")

    def text(self, model: str, scorer: str, statistic: str) -> str:
        """What the paper prints for our `model` and `scorer`; empty where it prints nothing, or nothing is mapped.

        `statistic` is "median", "mean", or "win_rate": of SmPO over this model, in percent.
        """
        if model not in self.models or scorer not in self.scorers:
            return ""
        table, metric = _content()["prompts"][self.prompts], self.scorers[scorer]
        value = table[self.models[model]][metric].get(statistic)
        printed = [cells[metric].get(statistic) for cells in table.values()]
        digits = max((len(repr(number).partition(".")[2]) for number in printed if number is not None), default=0)
        return "" if value is None else f"{value:.{digits}f}"

    def scale(self, scorer: str) -> int:
        """What the paper multiplies this scorer's values by: 100 for cosines."""
        return _content()["scale"][self.scorers[scorer]] if scorer in self.scorers else 1


@cache
def _content() -> dict[str, Any]:
    return json.loads(FILE.read_text())

