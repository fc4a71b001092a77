"""Options of image generation."""

import inspect
from typing import Any, Self

from pydantic import model_validator

from smpo.core.checks import check_device, check_known, check_positive
from smpo.core.errors import ConfigError
from smpo.core.sections import Section

DTYPES = ("float32", "float16", "bfloat16")


class GenerationOptions(Section):
    """Options of image generation. `batch_size` and `device` change the speed; all others change the pixels.

    Attributes:
        num_inference_steps: steps of the pipeline's own scheduler. None is the pipeline's default: 50 for SD1.x and
            SDXL.
        guidance_scale: classifier-free guidance; <= 1 switches it off. None is the pipeline's default: 7.5 for SD1.x
            and 5 for SDXL, as in the SmPO paper.
        seed: the noise of an image depends on this seed, the index of its prompt and its own index.
        batch_size: images per call of the pipeline.
        dtype: float32, float16 or bfloat16.
        device: "auto" (CUDA where there is one, else Apple's MPS, else CPU) or a torch device.
        images_per_prompt: images of each prompt, with different seeds.
    """

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    batch_size: int = 8
    dtype: str = "float32"
    device: str = "auto"
    images_per_prompt: int = 1

    @model_validator(mode="after")
    def _usable(self) -> Self:
        check_positive(batch_size=self.batch_size, images_per_prompt=self.images_per_prompt)
        if self.num_inference_steps is not None:
            check_positive(num_inference_steps=self.num_inference_steps)
        check_known(self.dtype, DTYPES, what="dtype")
        check_device(self.device, what="device")
        if (self.guidance_scale or 0) < 0 or self.seed < 0:
            raise ConfigError(f"guidance_scale and seed must be >= 0, got {self.guidance_scale} and {self.seed}")
        return self

    def completed(self, pipeline: type) -> "GenerationOptions":
        """These options, with the defaults of the class `pipeline` in place of None.

        Raises:
            ConfigError: the pipeline has no such parameter.
        """
        parameters, defaults = inspect.signature(pipeline.__call__).parameters, {}
        for name in ("num_inference_steps", "guidance_scale"):
            if name not in parameters:
                raise ConfigError(f"{pipeline.__name__} takes no {name}; choose a text-to-image pipeline")
            if getattr(self, name) is None:
                defaults[name] = parameters[name].default
        return self.model_copy(update=defaults)

    def decisive(self) -> dict[str, Any]:
        """The options that determine the pixels; the manifest of an image set records them."""
        names = ("num_inference_steps", "guidance_scale", "seed", "dtype", "images_per_prompt")
        return {name: getattr(self, name) for name in names}
