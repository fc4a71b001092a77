"""generate.py OUT [FAMILY SOURCE]...: images from folders and single files, with whatever libraries run this program.

Writes OUT/NUMBER.npy for each source, counted from 0.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

PIPELINES = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
PROMPTS = ["a small red house on the left, on a blue background", "something else"]
out, *given = sys.argv[1:]
for number, (family, source) in enumerate(zip(given[::2], given[1::2], strict=True)):
    if source.endswith(".safetensors"):
        configs = source.replace(".safetensors", ".config")
        pipeline = PIPELINES[family].from_single_file(source, config=configs, torch_dtype=torch.float32)
    else:
        pipeline = PIPELINES[family].from_pretrained(source)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    images = pipeline(PROMPTS, num_inference_steps=4, generator=generators, output_type="np").images
    np.save(Path(out) / f"{number}.npy", images)
