"""draw.py FAMILY KIND SOURCE OUT: pictures of a folder or a single file, with whatever libraries run this program."""

import sys

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

family, kind, source, out = sys.argv[1:]
pipelines = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
if kind == "file":
    configs = source.replace(".safetensors", ".config")
    pipeline = pipelines[family].from_single_file(source, config=configs, torch_dtype=torch.float32)
else:
    pipeline = pipelines[family].from_pretrained(source)
pipeline.set_progress_bar_config(disable=True)
prompts = ["a small red house on the left, on a blue background", "something else"]
draws = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
np.save(out, pipeline(prompts, num_inference_steps=4, generator=draws, output_type="np").images)
