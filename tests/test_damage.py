"""Damage to any file of any artefact ends in one line that names the file: nothing damaged is ever used.

Every artefact is made once by the real stages. Then each of its files is harmed in every way, one at a time, and read
as the next stage reads it.
"""

import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smpo.audit.stage import audit_folder
from smpo.core.artefacts import Artefact
from smpo.core.errors import SmpoError
from smpo.data.pair_set import PairSet
from smpo.evaluation.appearance import Appearance, measure_images
from smpo.evaluation.scores import ImageScores, evaluate_images
from smpo.labels import LABELS
from smpo.models.part_digests import check_trained
from smpo.preparation.cache import LatentCache
from smpo.preparation.label import LabelTable, label_pairs
from smpo.preparation.sampling import check_sampled, sample_pairs
from smpo.preparation.score import ScoreTable, score_pairs
from smpo.rewards.options import ScoringOptions
from smpo.sampling.image_set import ImageSet
from smpo.sampling.options import GenerationOptions
from smpo.sampling.store import generate_shared
from smpo.training.checkpoint import load_checkpoint
from smpo.training.implicit import HeldOut, measure_held_out, read_held_out
from smpo.training.invert import cache_inversions, with_cached_inversions
from smpo.training.options import ImplicitOptions
from smpo.training.result import metrics_of
from smpo.training.sources.order import example_at
from smpo.training.trainer import train
from tests.preparation.scorers import Brightness
from tests.training.conftest import prepare, write_jsonl_pairs
from tests.training.runs import make_run

FAST = GenerationOptions(num_inference_steps=1, batch_size=4)
HERE = ScoringOptions(workers=0)
RENOISE = {"name": "renoise", "inversion_steps": 2, "grid": "subdivide"}
RUN = {"noising": RENOISE, "steps": 2, "batch_size": 2, "micro_batch_size": 2, "checkpoint_every": 1}
PROMPTS = ["a cat", "a dog"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, random_sd: Path) -> Path:
    """A folder with one artefact of every kind."""
    root = tmp_path_factory.mktemp("work")
    prepare(root, write_jsonl_pairs(root / "source", count=4), random_sd, "sd")
    pairs = PairSet.open(root / "pairs")
    score_pairs(pairs, {"light": Brightness()}, root / "score", options=HERE)
    scores = {"light": ScoreTable.open(root / "score/light")}
    label_pairs(pairs, scores, LABELS.build({"name": "smoothed"}), root / "smoothed")
    run = make_run(root, root / "train", random_sd, **RUN)
    plain = replace(run, options=run.options.model_copy(update={"cached_inversion_epochs": 1}))
    cache_inversions(plain, root / "invert")
    train(make_run(root, root / "train", random_sd, lora={"rank": 1}, **RUN))
    sample_pairs(str(random_sd), PROMPTS, root / "sample", options=FAST)
    generate_shared(str(random_sd), PROMPTS, root / "generate", store=root / "store", options=FAST)
    images = ImageSet.open(root / "generate")
    (root / "store/images").joinpath(images.folder.name).rename(root / "store/images/set")
    shutil.rmtree(root / "generate")
    generated = root / "store/images/set"
    evaluate_images(ImageSet.open(generated), {"light": Brightness()}, root / "evaluate", options=HERE)
    measure_images(ImageSet.open(generated), root / "appearance")
    held = HeldOut(run.pairs, run.cache, run.family, {"cache": run.cache.fingerprint})
    measure_held_out(
        held, root / "implicit", policy=str(root / "train/model"), reference=None,
        options=ImplicitOptions(timesteps=(500,)),
    )
    audit_folder(root / "pairs", root / "audit", scores=root / "score")
    return root


def read_pairs(root: Path) -> None:
    pairs = PairSet.open(root / "pairs")
    list(pairs.iter_images())
    Artefact.open(pairs.folder, stage="pairs").check()  # the list of dropped rows, which people read


def read_cache(root: Path) -> None:
    cache = LatentCache(root / "cache")
    cache.moments(0, 0, 0)
    cache.size(0, 0, 0)
    cache.prompts([0])


def read_store(root: Path, model: Path) -> None:
    run = make_run(root, root / "train", model, **RUN)
    run = replace(run, options=run.options.model_copy(update={"cached_inversion_epochs": 1}))
    cached = with_cached_inversions(run, root / "invert").cached
    cached.read([example_at(0, num_pairs=len(run.pairs), order=run.order)])


def read_training(root: Path) -> None:
    check_trained(root / "train/model")
    Artefact.open(root / "train", stage="train").check("lora/")
    metrics_of(root / "train")


def read_labels(root: Path) -> None:
    LabelTable.open(root / "smoothed")
    Artefact.open(root / "smoothed", stage="label").check()


READERS: dict[str, Callable[[Path], object]] = {
    "pairs": read_pairs, "score/light": lambda root: ScoreTable.open(root / "score/light"), "smoothed": read_labels,
    "cache": read_cache, "train": read_training, "sample": lambda root: check_sampled(root / "sample"),
    "store/images/set": lambda root: ImageSet.open(root / "store/images/set").images(),
    "evaluate": lambda root: ImageScores.open(root / "evaluate"),
    "appearance": lambda root: Appearance.open(root / "appearance"),
    "implicit": lambda root: read_held_out(root / "implicit"),
    "audit": lambda root: Artefact.open(root / "audit", stage="audit").check(),
}


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])


def exchange(path: Path, draw: random.Random) -> None:
    """Another file's bytes; of a sibling where there is one."""
    others = [file for file in sorted(path.parent.iterdir()) if file.is_file() and file != path]
    others = [file for file in others if file.read_bytes() != path.read_bytes()]
    path.write_bytes(draw.choice(others).read_bytes() if others else b"{}")


HARMS: tuple[Callable[[Path, random.Random], None], ...] = (
    flip, flip, flip, truncate, exchange, lambda path, _: path.write_bytes(b""), lambda path, _: path.unlink(),
    lambda path, _: path.write_bytes(path.read_bytes() + b"\n"),
)


def harmed(path: Path, draw: random.Random) -> Iterator[str]:
    """Harm the file in one way after the other; whole again after each."""
    content = path.read_bytes()
    for number, harm in enumerate(HARMS):
        if content or number not in (0, 1, 2, 3, 5):
            harm(path, draw)
            if not path.exists() or path.read_bytes() != content:
                yield f"{path.name}, harm {number}"
        path.write_bytes(content)


def refusal(read: Callable[[], object]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read()
        except SmpoError as error:
            return str(error)
    return ""


def files_of(folder: Path) -> list[Path]:
    """All that a stage's reader depends on: what is sealed, and the manifest."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    aside = ("checkpoints", "samples", "logs")
    parts = [(path, path.relative_to(folder).parts) for path in found]
    unread = {"README.md", "recipe.yaml"}
    return [path for path, names in parts if names[0] not in aside and names[-1] not in unread]


@pytest.mark.parametrize("artefact", READERS)
def test_every_harm_to_every_file_is_named(work: Path, artefact: str) -> None:
    read, draw, cases = READERS[artefact], random.Random(7), 0
    read(work)
    for path in files_of(work / artefact):
        for harm in harmed(path, draw):
            message = refusal(lambda: read(work))
            assert message and "\n" not in message, harm
            assert path.name in message or (path.name == "manifest.json" and str(path.parent) in message), message
            assert "smpo " in message or "delete" in message, message
            cases += 1
    read(work)
    assert cases >= 7 * 2


def test_every_harm_to_stored_visits_is_named(work: Path, random_sd: Path) -> None:
    draw = random.Random(8)
    for path in files_of(work / "invert"):
        for harm in harmed(path, draw):
            message = refusal(lambda: read_store(work, random_sd))
            assert (path.name in message or str(path.parent) in message) and "\n" not in message, harm


def test_every_harm_to_a_checkpoint_falls_back_to_the_one_before(work: Path) -> None:
    folder, draw, cases = work / "train/checkpoints", random.Random(9), 0
    for path in sorted((folder / "step-00000002").iterdir()):
        for harm in harmed(path, draw):
            with pytest.warns(UserWarning, match="falling back"):
                assert load_checkpoint(folder).step == 1, harm
            cases += 1
    assert load_checkpoint(folder).step == 2 and cases >= 4 * 7


def test_an_artefact_of_other_pairs_is_refused(work: Path, tmp_path: Path, random_sd: Path) -> None:
    """Replicated, but not what belongs here."""
    other = prepare(tmp_path, write_jsonl_pairs(tmp_path / "source", count=5), random_sd, "sd")
    for artefact in ("label", "cache"):
        mixed = Path(shutil.copytree(work, tmp_path / f"mixed-{artefact}", ignore=lambda *_: ["store", "sample"]))
        shutil.rmtree(mixed / artefact)
        shutil.copytree(other / artefact, mixed / artefact)
        message = refusal(lambda mixed=mixed: make_run(mixed, tmp_path / "run", random_sd))
        assert f"`smpo {artefact}` read other pairs than those of" in message
