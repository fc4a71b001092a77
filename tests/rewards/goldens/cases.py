"""The inputs of the goldens: prompts, pictures and pixel values, the same wherever they are made."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HARD_PROMPTS: tuple[str, ...] = (
    "", " ", "a photo of a cat", "A Photo Of A CAT", "  two   spaces \t tab \n newline  ",
    "the cat\u2019s hat and the dog\u2018s \u201cbone\u201d \u2013 they\u2019re here",
    "I'm, you'll, they've, he'd, she's, CAN'T, we're", "fish &amp; chips &lt;b&gt;", "&amp;amp;lt; twice escaped",
    "e&#769;clair by entity", "caf\u00e9 cr\u00e8me", "cafe\u0301 decomposed", "the \ufb01re \ufb02ower o\ufb03ce",
    "sch\u00c3\u00b6n mojibake", "\u00e2\u0153\u201d No problems", "a \u201cquote\u00e2\u20ac\u009d",
    "\u0394\u03a3 final \u03a3\u03a3\u03a3", "\u0130stanbul \u0131", "Stra\u00dfe STRASSE",
    "\u5bcc\u58eb\u5c71 with snow", "\u6771\u4eac\u30bf\u30ef\u30fc",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\U0001f600\U0001f680 emoji \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "12345 67,890.12 3rd 1/2 \u00bd \u00b2 \u2163", "50mm f/1.4, 8k, --ar 16:9 --v 5", "!!!???...;;;:::",
    "a_b-c/d\\e|f~g`h^i", "((masterpiece)), [best:1.3], {x}", "<|startoftext|> in the middle <|endoftext|> of it",
    "<start_of_text> in the middle <end_of_text> of it", "[CLS] in the middle [SEP] [MASK] [PAD] [DEC] [ENC] [UNK]",
    "x<|endoftext|>y", "zero\u200bwidth\u00a0nbsp\u3000wide\u00adsoft", "control \x07 bell \x1b[31mred\x1b[0m",
    "\uff21\uff22\uff23 fullwidth \uff11\uff12", "\u2460\u2122\u00ae\u00a9", "a\u0300\u0301\u0302\u0303 stack",
    "antidisestablishmentarianism supercalifragilisticexpialidocious", "https://example.com/a?b=c&d=e",
    "#hashtag @mention $5 100%", "a very long prompt " * 12, "trending on artstation, " * 20, "word " * 73 + "last",
    "word " * 74 + "last", "word " * 75 + "last", "x" * 300, "A cat with two horns on its head",
    "a painting of an ocean with clouds and birds, day time, low depth field effect",
)
SIZES = ((224, 224), (512, 512), (300, 225), (225, 301), (224, 100), (1216, 832), (100, 60), (33, 224), (7, 5), (1, 1),
         (640, 427), (1, 40))
PROMPTS = ("a red cat", "two dogs on a skateboard, oil painting", "the sky above the port was the color of television")


def picture(size: tuple[int, int]) -> Image.Image:
    """A noise picture of (width, height), the hardest kind to resize alike."""
    width, height = size
    return Image.fromarray(np.random.default_rng(size).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixel_values(seed: int, batch: int) -> Tensor:
    """Normalised-looking pixels, shape (batch, 3, 224, 224), float32: noise over large blobs."""
    rng = np.random.default_rng([seed, batch])
    blobs = rng.standard_normal((batch, 3, 7, 7), dtype=np.float32).repeat(32, axis=2).repeat(32, axis=3)
    return torch.from_numpy(blobs + 0.5 * rng.standard_normal((batch, 3, 224, 224), dtype=np.float32))


def thinned(values: Tensor) -> Tensor:
    """Every 13th row and 11th column of pixel values (3, H, W): what the goldens keep of them."""
    return values[:, ::13, ::11].contiguous()


def padded(ids: Sequence[Sequence[int]]) -> Tensor:
    """Token ids with zeros up to 77, shape (B, 77), as open_clip's tokenizer gives them."""
    return torch.tensor([[*row, *[0] * (77 - len(row))] for row in ids])
