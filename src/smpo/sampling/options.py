"""How images are made."""

import inspect
from dataclasses import dataclass, replace
from typing import Any

from smpo.core.checks import check_device, check_known, check_positive
from smpo.core.errors import ConfigError

DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How images are made. `batch_size` and `device` change the speed; everything else changes the pixels.

    Attributes:
        num_inference_steps: steps of the pipeline's own scheduler; None is the pipeline's default, 50 for SD1.x and
            SDXL.
        guidance_scale: classifier-free guidance, <= 1 switches it off; None is the pipeline's default: 7.5 for SD1.x
            and 5 for SDXL, the values of the SmPO paper.
        seed: with the prompt's and the image's index, determines the noise of each image.
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

    def __post_init__(self) -> None:
        """Check every value."""
        check_positive(batch_size=self.batch_size, images_per_prompt=self.images_per_prompt)
        if self.num_inference_steps is not None:
            check_positive(num_inference_steps=self.num_inference_steps)
        check_known(self.dtype, DTYPES, what="dtype")
        check_device(self.device, what="device")
        if (self.guidance_scale or 0) < 0 or self.seed < 0:
            raise ConfigError(f"guidance_scale and seed must be >= 0, got {self.guidance_scale} and {self.seed}")

    def completed(self, pipeline: type) -> "GenerationOptions":
        """These options with the defaults of the class `pipeline` for what they leave open.

        Raises:
            ConfigError: the pipeline has no such parameter.
        """
        own = inspect.signature(pipeline.__call__).parameters
        for name in ("num_inference_steps", "guidance_scale"):
            if name not in own:
                raise ConfigError(f"{pipeline.__name__} takes no {name}; choose a text-to-image pipeline")
        steps, guidance = self.num_inference_steps, self.guidance_scale
        return replace(
            self, num_inference_steps=own["num_inference_steps"].default if steps is None else steps,
            guidance_scale=own["guidance_scale"].default if guidance is None else guidance,
        )

    def decisive(self) -> dict[str, Any]:
        """The options that determine pixels: what a folder of images is bound to."""
        names = ("num_inference_steps", "guidance_scale", "seed", "dtype", "images_per_prompt")
        return {name: getattr(self, name) for name in names}
