"""The READMEs of what a run writes. They travel with the files, so they name no place on this machine."""

import os
from typing import Any

import yaml

from smpo import __version__
from smpo.training.options import LoraOptions
from smpo.training.run import Run

DORA = (
    "No file for ComfyUI and A1111 is written: both read DoRA's magnitudes by another norm than peft's, ComfyUI by the "
    "base weight's and A1111 along the input; use the pipeline in model/, or training.lora.dora=false."
)
DORA_SCALE = (
    '`cross_attention_kwargs={"scale": 0}` does not give the base back: the trained norms stay. For the base, call '
    "`unload_lora_weights()`."
)


def model_card(run: Run) -> str:
    """The README of the trained model: base, method, data, every setting."""
    options, optimizer = run.options, run.options.optimizer
    return f"""---
{_front(run)}library_name: diffusers
pipeline_tag: text-to-image
tags: [smpo, preference-alignment, {run.settings["objective"]["name"]}]
---

# {run.name}

The {run.family.component} of `{public_name(run.init_weights or run.family.source)}`, trained on image preferences
with smpo {__version__}: objective **{run.settings["objective"]["name"]}**, noising
**{run.settings["noising"]["name"]}**, {options.steps} optimizer steps of {options.batch_size} {run.unit} at an
effective learning rate of {optimizer.lr:g} ({optimizer.name}, {optimizer.warmup_steps} warm-up
steps){_how(run.options.lora)}.
The text encoders, the VAE and the scheduler are those of the base model, whose licence applies.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("path/of/this/folder")
image = pipeline("a prompt").images[0]
```

## Recipe

```yaml
{public_recipe(run.recipe_yaml)}
```

## Inputs

| artefact | fingerprint |
| --- | --- |
{chr(10).join(f"| {name} | `{digest[:16]}` |" for name, digest in run.inputs.items())}
"""


def _how(lora: LoraOptions | None) -> str:
    return f"; a LoRA of rank {lora.rank}, fused into these weights" if lora else ""


def lora_card(run: Run, options: LoraOptions) -> str:
    """The README of the adapters: what they belong to and how to load them."""
    base = public_name(run.init_weights or run.family.source)
    other_programs = f"{DORA}\n\n{DORA_SCALE}" if options.dora else (
        f"ComfyUI: put `{run.name}_comfyui.safetensors` into `models/loras` (A1111: `models/Lora`) and load it at "
        "strength 1 on the same base. Of `pytorch_lora_weights.safetensors` it reads a part or nothing, and only its "
        "log says so."
    )
    return f"""---
{_front(run)}library_name: diffusers
tags: [lora, smpo, preference-alignment]
---

# {run.name}: LoRA

Adapters of rank {options.rank}, alpha {options.scaled_by:g}, on {", ".join(options.targets)} of the UNet of
`{base}`: only on those weights do they give the trained model.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{public_name(run.family.source)}")
pipeline.load_lora_weights("path/of/this/folder")
```

{other_programs}
"""


def public_name(source: str) -> str:
    """What a source is called elsewhere: a hub id or package data as it is, of a local path the last part."""
    is_local = source.startswith(("/", "~")) or os.path.exists(source)
    return os.path.basename(os.path.normpath(source)) if is_local else source


def public_recipe(recipe_yaml: str) -> str:
    """A recipe in which every path on this machine is cut to its last part."""
    return yaml.safe_dump(_public(yaml.safe_load(recipe_yaml)), sort_keys=False, width=120).strip()


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return public_name(value) if isinstance(value, str) else value


def _front(run: Run) -> str:
    """The line of the front matter that names the base; the hub takes ids alone."""
    name = public_name(run.family.source).partition("@")[0]  # without its revision
    return f"base_model: {name}\n" if name.count("/") == 1 and name[0].isalnum() else ""
