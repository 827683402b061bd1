"""Trains the demo's tokenizer: `python -m tasks.demo_tokenizer.train [folder]`.

A SentencePiece BPE model with LLaMA's settings (byte fallback, single digits, no normalisation),
small enough that most words of the demo are one piece and most pieces are met often.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import sentencepiece

from tasks import demo
from tasks import demo_words as words

VOCAB_SIZE = 896
CONVERSATIONS = 6_000
WORD_WEIGHT = 1_500
TAGS = {"user": "<|user|>", "assistant": "<|assistant|>"}
CONFIG = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "model_max_length": 2048,
    "tokenizer_class": "LlamaTokenizer",
    "legacy": False,
}


def lines() -> Iterator[str]:
    """The text to learn from: the demo's own training split, then its words, heavily.

    An answer follows a newline, so its first word has no leading space; each word that is copied
    from a question into an answer is therefore given in both forms and becomes one piece in each.
    """
    for record in islice(demo.generate("train"), CONVERSATIONS):
        for message in record["messages"]:
            yield TAGS[message["role"]]
            yield message["content"]
    for _ in range(WORD_WEIGHT):
        for word in (*words.THINGS, *words.NAMES, *words.COLOURS, *words.PLACES):
            yield f"{word} |{word}"


def train() -> bytes:
    """The model file's content; the same on every run."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=lines(),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def main(folder: str | Path = demo.TOKENIZER_DIR) -> None:
    """Writes `tokenizer.model` and `tokenizer_config.json` into the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(train())
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
