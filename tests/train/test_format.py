"""What a run says of its chat template."""

import dataclasses
import io

from chat import small_bpe
from rich.console import Console

from train.small import MODEL, run_config
from tulu_jax.chat import load_tokenizer
from tulu_jax.train.format import say_format


def said(tmp_path, tokenizer, **data):
    """What is printed for a run with this tokenizer."""
    output = io.StringIO()
    config = run_config(tmp_path / "run", tokenizer=str(tokenizer.path.parent), **data)
    model = dataclasses.replace(MODEL, vocab_size=tokenizer.vocab_size)
    say_format(config.data, model, tokenizer, Console(file=output, width=400))
    return output.getvalue()


def test_nothing_is_said_of_the_plain_case(tmp_path):
    assert said(tmp_path, load_tokenizer(small_bpe.gpt2(tmp_path))) == ""


def test_prompts_that_end_in_other_tokens_than_are_trained_are_told(tmp_path):
    folder = small_bpe.gpt2(tmp_path)
    options = {"template": "llama3", "add_tokens": "template"}
    text = said(
        tmp_path, load_tokenizer(folder, **options), chat_template="llama3", add_tokens="template"
    )
    assert text.startswith("Chat template: llama3\nVocabulary with ADD_TOKENS: 417 rows for the")
    assert "cuts the end of the chat template 'llama3' otherwise where an answer follows" in text
    other = load_tokenizer(folder, template="zephyr")
    assert said(tmp_path, other, chat_template="zephyr") == "Chat template: zephyr\n"


def test_the_tokenizers_own_template_is_named(tmp_path):
    folder = small_bpe.gpt2(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    text = said(tmp_path, load_tokenizer(folder))
    assert "though the tokenizer's folder has its own (none of those known here)" in text
