"""Named GPUs: the makers' peak rates, and memory as the driver reports it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GPU:
    """A device.

    Attributes:
        name: as people call it.
        memory_gib: what PyTorch reports as its total, GiB.
        half_tflops: dense bf16 tensor-core peak with float32 accumulation, TFLOP/s; that of fp16 is the same.
        float32_tflops: peak without tensor cores, TFLOP/s.
        source: of the rates.
    """

    name: str
    memory_gib: float
    half_tflops: float
    float32_tflops: float
    source: str


GPUS = (
    GPU("RTX 3090", 23.7, 71.0, 35.6, "NVIDIA Ampere GA102 white paper"),
    GPU("RTX 4090", 23.6, 165.2, 82.6, "NVIDIA Ada white paper"),
    GPU("L40S", 44.4, 362.0, 91.6, "NVIDIA L40S data sheet"),
    GPU("A800 80GB", 79.2, 312.0, 19.5, "NVIDIA A100 data sheet; the A800 differs in its chain_length alone"),
    GPU("H100 SXM", 79.1, 989.4, 66.9, "NVIDIA Hopper white paper"),
    GPU("H200 SXM", 139.8, 989.4, 66.9, "NVIDIA H200 data sheet"),
)
