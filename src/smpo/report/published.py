"""The paper's numbers, shown beside those of a run. The recipe names the paper's model for each image set."""

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
    """Rows and columns of the paper (Lu et al. 2025, Tables 2, 8 and 9) to show beside the run's own."""

    prompts: str = Field(description="hpdv2, parti_prompts or pickapic_v2_test")
    models: dict[str, str] = Field(description=(
        "image set -> the paper's model, such as sd15/dpo or sdxl/smpo; `trained` is the set of the recipe's own model"
    ))
    scorers: dict[str, str] = Field(description="scorer -> the paper's metric, such as pickscore or hpsv2_1")

    def named(self, trained: str) -> "PublishedNumbers":
        """These numbers with `trained` replaced by the name of the recipe's model."""
        models = {trained if name == TRAINED else name: paper_model for name, paper_model in self.models.items()}
        return self.model_copy(update={"models": models})

    def check(self, models: tuple[str, ...], scorers: tuple[str, ...]) -> None:
        """Raise ConfigError for an unknown prompt set, model, scorer or metric."""
        content = _content()
        check_known(self.prompts, content["prompts"], what="report.published.prompts")
        for name, paper_model in self.models.items():
            check_known(name, models, what="set in report.published.models")
            check_known(paper_model, content["prompts"][self.prompts], what=f"model of the paper on {self.prompts}")
        for scorer, metric in self.scorers.items():
            check_known(scorer, scorers, what="scorer in report.published.scorers")
            check_known(metric, content["scale"], what="metric of the paper")

    def text(self, model: str, scorer: str, statistic: str) -> str:
        """The number that the paper prints for `model` and `scorer`; empty text where there is none.

        `statistic` is "median", "mean" or "win_rate"; the latter is SmPO's win-rate over the model, in percent.
        """
        if model not in self.models or scorer not in self.scorers:
            return ""
        table, metric = _content()["prompts"][self.prompts], self.scorers[scorer]
        value = table[self.models[model]][metric].get(statistic)
        printed = [cells[metric].get(statistic) for cells in table.values()]
        digits = max((len(repr(number).partition(".")[2]) for number in printed if number is not None), default=0)
        return "" if value is None else f"{value:.{digits}f}"

    def scale(self, scorer: str) -> int:
        """Factor by which the paper multiplies this scorer's values: 100 for cosines, else 1."""
        return _content()["scale"][self.scorers[scorer]] if scorer in self.scorers else 1


@cache
def _content() -> dict[str, Any]:
    return json.loads(FILE.read_text())
