"""Conversations, the chat template, tokenizers, and the way from one to the other.

    tokenizer = load_tokenizer("path/to/llama")
    encoded = encode([{"role": "user", "content": "Hi"}, ...], tokenizer)
    encoded.tokens, encoded.loss_mask

Importing this room loads numpy only; sentencepiece is loaded with a tokenizer of that kind, rich by
the viewer, tokenizers by the export, and jinja2 where a folder's own chat template is looked at.
"""

from tulu_jax.chat.added import AddTokens, check_add_tokens
from tulu_jax.chat.encode import (
    Encoded,
    check_bos,
    encode,
    encode_many,
    encode_prompt,
    prompt_differs,
)
from tulu_jax.chat.export import save_tokenizer_files
from tulu_jax.chat.load import (
    checkpoint_template,
    has_template,
    load_model_tokenizer,
    load_tokenizer,
)
from tulu_jax.chat.messages import ROLES, Message, Messages, check_messages
from tulu_jax.chat.segments import ChatTemplate
from tulu_jax.chat.settings import copy_tokenizer_files, holds_tokenizer, tokenizer_files
from tulu_jax.chat.template import CHAT_TEMPLATE, TEMPLATE_VERSION, hf_template, render
from tulu_jax.chat.templates import (
    CHECKPOINT,
    TEMPLATE_NAMES,
    TEMPLATES,
    check_template_name,
)
from tulu_jax.chat.tokenizer import Encoding, Tokenizer
from tulu_jax.chat.viewer import preview

__all__ = [
    "CHAT_TEMPLATE",
    "CHECKPOINT",
    "ROLES",
    "TEMPLATES",
    "TEMPLATE_NAMES",
    "TEMPLATE_VERSION",
    "AddTokens",
    "ChatTemplate",
    "Encoded",
    "Encoding",
    "Message",
    "Messages",
    "Tokenizer",
    "check_add_tokens",
    "check_bos",
    "check_messages",
    "check_template_name",
    "checkpoint_template",
    "copy_tokenizer_files",
    "encode",
    "encode_many",
    "encode_prompt",
    "has_template",
    "hf_template",
    "holds_tokenizer",
    "load_model_tokenizer",
    "load_tokenizer",
    "preview",
    "prompt_differs",
    "render",
    "save_tokenizer_files",
    "tokenizer_files",
]
