"""Images from pipelines and prompts: one PNG per prompt and seed, and a table that says which is which.

The random numbers of an image depend on the seed, its prompt's index and its own index, and are drawn on the CPU;
the images are made in batches that depend on their number alone. So neither the device, nor an interruption, nor the
number of processes changes what an image shows, and the batch size does so by rounding only.
"""

from smpo.sampling.image_set import ImageSet
from smpo.sampling.options import GenerationOptions
from smpo.sampling.pipelines import load_pipeline
from smpo.sampling.rendering import image_seed, render, sample_grid
from smpo.sampling.sets import ImageSetReport, Progress, generate_images
from smpo.sampling.store import generate_shared

__all__ = [
    "GenerationOptions", "ImageSet", "ImageSetReport", "Progress", "generate_images", "generate_shared", "image_seed",
    "load_pipeline", "render", "sample_grid",
]
