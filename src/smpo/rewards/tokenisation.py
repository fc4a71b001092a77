"""Prompts to token ids as the originals do it: transformers' CLIP, open_clip's and OpenAI's, ImageReward's BERT."""

import html
from dataclasses import dataclass
from pathlib import Path

import ftfy
import regex
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import BertTokenizer, CLIPTokenizer

from smpo.core.errors import DataError

CONTEXT = 77  # tokens that CLIP reads
OPEN_CLIP_MARKS = ("<start_of_text>", "<end_of_text>")  # open_clip >= 2 and HPSv2
OPENAI_MARKS = ("<|startoftext|>", "<|endoftext|>")
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
BERT_CONTEXT = 35  # ImageReward's max_length
CLIP_FILES = ("vocab.json", "merges.txt", "tokenizer.json")
BERT_FILES = ("vocab.txt", "tokenizer.json")


class TransformersClipTokens:
    """The CLIPTokenizer of transformers: normal form C and lower case, no repair of mojibake or HTML."""

    def __init__(self, folder: Path, *, positions: int) -> None:
        self._tokenizer = _clip_tokenizer(folder)
        self._max_length = min(self._tokenizer.model_max_length, positions)  # the former is unset in some checkpoints

    def __call__(self, prompt: str) -> Tensor:
        """Ids from start to end token, shape (L,), int64; a longer prompt is cut before the end token."""
        return torch.tensor(self._tokenizer(prompt, truncation=True, max_length=self._max_length)["input_ids"])


class OpenClipTokens:
    """The SimpleTokenizer of OpenAI's CLIP and open_clip: ftfy, HTML unescaped twice, then the same byte pairs.

    Byte pairs are merged by `tokenizers` with the vocabulary of `folder`. transformers' own tokenizer, fed with
    cleaned text, differs for decomposed characters from HTML, final sigmas and literal marks; this one does not.

    Args:
        folder: holds a CLIP vocabulary.
        marks: what in a prompt stands for the start and end token themselves: OPEN_CLIP_MARKS or OPENAI_MARKS.
    """

    def __init__(self, folder: Path, *, marks: tuple[str, str] = OPEN_CLIP_MARKS) -> None:
        self._byte_pairs = Tokenizer(_byte_pairs(folder))
        self._byte_pairs.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
        self._ends = tuple(self._byte_pairs.token_to_id(mark) for mark in OPENAI_MARKS)
        self._marks = dict(zip(marks, self._ends, strict=True))
        self._words = regex.compile("|".join([*map(regex.escape, marks), WORDS]), regex.IGNORECASE)

    def __call__(self, prompt: str) -> Tensor:
        """Ids from start to end token, shape (L,), L <= 77, int64; the last of a longer prompt is the end token.

        Without the original's zero padding, which a causal text tower pooled at the end token never sees.
        """
        start, end = self._ends
        ids = [start]
        for word in self._words.findall(clean(prompt)):
            ids += [self._marks[word]] if word in self._marks else self._byte_pairs.encode(word).ids
        return torch.tensor([*ids[: CONTEXT - 1], end])


def clean(prompt: str) -> str:
    """The prompt as OpenAI's CLIP reads it: mojibake repaired, HTML unescaped, single spaces, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return regex.sub(r"\s+", " ", text).strip().lower()


@dataclass(frozen=True)
class BertIds:
    """Token ids and attention mask of one prompt, both of shape (35,), int64."""

    ids: Tensor
    mask: Tensor


class ImageRewardTokens:
    """bert-base-uncased with BLIP's two added tokens, cut and padded to 35."""

    def __init__(self, folder: Path) -> None:
        if not any((folder / name).is_file() for name in BERT_FILES):
            raise DataError(f"{folder} holds no BERT tokenizer (vocab.txt); set tokenizer to bert-base-uncased's")
        self._tokenizer = BertTokenizer.from_pretrained(folder)
        self._tokenizer.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)  # 30522 and 30523

    def __call__(self, prompt: str) -> BertIds:
        """Ids and mask of one prompt; word pieces after the 33rd are cut."""
        tokens = self._tokenizer(prompt, padding="max_length", truncation=True, max_length=BERT_CONTEXT)
        return BertIds(torch.tensor(tokens["input_ids"]), torch.tensor(tokens["attention_mask"]))


def _clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """transformers' tokenizer; without its files version 5 would build an empty one and raise nothing."""
    _check_clip_files(folder)
    return CLIPTokenizer.from_pretrained(folder)


def _byte_pairs(folder: Path) -> BPE:
    """The byte pairs of `folder`, from either layout."""
    _check_clip_files(folder)
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json")).model
    vocabulary, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
    return BPE.from_file(vocabulary, merges, end_of_word_suffix="</w>", unk_token=OPENAI_MARKS[1])


def _check_clip_files(folder: Path) -> None:
    layouts = (("tokenizer.json",), ("vocab.json", "merges.txt"))
    if not any(all((folder / name).is_file() for name in names) for names in layouts):
        raise DataError(f"{folder} holds no CLIP tokenizer (vocab.json, merges.txt); "
                        "set processor or tokenizer to one that does")
