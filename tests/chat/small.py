"""The small SentencePiece model that the tests of this room use."""

import io

import sentencepiece

CORPUS = [
    "<|user|> Spell the word camel backwards, please.",
    "<|assistant|> The word camel spelled backwards is lemac.",
    "What is 12 plus 30? The sum of 12 and 30 is 42.",
    "def add(a, b):    return a + b  # four spaces inside",
    "Which animal lives in the desert? A camel lives in the desert.",
    "The naïve café in Zürich sells crème brûlée for 7 €.",
] * 4


def train(**options) -> bytes:
    """A SentencePiece model of `CORPUS`, with the settings the project's tokenizers need."""
    model = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 360,
        "byte_fallback": True,
        "split_digits": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 1.0,
        "hard_vocab_limit": False,
        "minloglevel": 2,
        **options,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, **settings
    )
    return model.getvalue()
