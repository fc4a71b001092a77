"""What all cases start from: tiny pipelines, pairs and one finished run, made once."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from smpo.tiny.prompts import sample_prompts
from tests.fuzz.running import run
from tests.tiny_pipelines import save_random_sd, save_random_sdxl
from tests.training.conftest import write_jsonl_pairs

NUM_PAIRS = 6
STAGES = ("pairs", "score", "label", "cache", "train", "generate", "evaluate", "report")
REWARD = "package://smpo.tiny/weights/tiny-reward"
NAME = "fz"


@dataclass(frozen=True)
class World:
    """The folder `root` with everything that cases share; none of them may change it.

    A finished run lies in `root`/finished, as the working folder in which it was made: recipe.yaml, prompts.txt,
    runs/fz and runs/store. What it was made from has absolute paths.
    """

    root: Path

    @cached_property
    def sd(self) -> Path:
        """A Stable Diffusion folder of random weights."""
        return save_random_sd(self.root / "models" / "sd")

    @cached_property
    def sdxl(self) -> Path:
        """A Stable Diffusion XL folder of random weights."""
        return save_random_sdxl(self.root / "models" / "sdxl")

    @cached_property
    def pairs(self) -> Path:
        """A jsonl file of NUM_PAIRS pairs with chosen and rejected, the images beside it."""
        return write_jsonl_pairs(self.root / "pairs", count=NUM_PAIRS)

    @cached_property
    def finished(self) -> Path:
        """The working folder of a finished run of `recipe`."""
        folder, home = self.root / "finished", self.root / "home"
        folder.mkdir()
        home.mkdir()
        self.write_recipe(folder)
        for stage in STAGES:
            result = run([stage, "recipe.yaml"], folder, home=home, limit_s=120)
            if result.code:
                raise RuntimeError(f"smpo {stage} of an undamaged run failed: {result.crash or result.err}")
        return folder

    def write_recipe(self, folder: Path) -> None:
        """Write recipe.yaml and the prompts that it names."""
        for name, text in self._texts.items():
            (folder / name).write_text(text)

    @cached_property
    def _texts(self) -> dict[str, str]:
        prompts = "\n".join(sample_prompts(2, seed=0, split="heldout"))
        return {"recipe.yaml": yaml.safe_dump(self.recipe, sort_keys=False), "prompts.txt": prompts}

    @cached_property
    def recipe(self) -> dict:
        """A whole recipe, in which every seam has a member and every stage is quick."""
        return {
            "name": NAME,
            "model": {"name": "sd", "source": str(self.sd)},
            "data": {"source": str(self.pairs)},
            "scorer": {"name": "pickscore", "source": REWARD, "processor": REWARD},
            "labels": {"name": "smoothed"},
            "noising": {"name": "forward"},
            "objective": {"name": "smpo", "beta": 2000, "gamma": 1},
            "cache": {"resolution": 32},
            "training": {
                "steps": 2,
                "batch_size": 2,
                "micro_batch_size": 2,
                "checkpoint_every": 1,
                "trackers": [],
                "optimizer": {"lr": 1e-3},
            },
            "generation": {"prompts": "prompts.txt", "num_inference_steps": 1, "seed": 3},
            "evaluation": {"scorers": {"verifier": {"name": "verifier"}}},
        }

    def copy_of_finished(self, cwd: Path) -> Path:
        """`cwd`, filled with the finished run. No hard links: the stages append to their logs in place."""
        shutil.copytree(self.finished, cwd, dirs_exist_ok=True)
        return cwd

    def copy_of_model(self, folder: Path, *, family: str = "sd") -> Path:
        """A copy of a pipeline folder that may be changed."""
        return Path(shutil.copytree(getattr(self, family), folder))
