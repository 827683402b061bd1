"""Chat formats as text."""

import pytest

from eval.templates import (
    TULU,
    create_prompt_with_llama2_chat_format,
    create_prompt_with_tulu_chat_format,
    import_formatter,
)
from tulu_jax.errors import ConfigError, DataError

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hi "},
    {"role": "assistant", "content": " Yo "},
    {"role": "user", "content": "Bye"},
]


def test_tulu_writes_each_role_and_ends_where_the_answer_begins():
    assert create_prompt_with_tulu_chat_format(CHAT) == (
        "<s><|system|>\nBe brief.\n<|user|>\n Hi \n<|assistant|>\nYo</s>\n<|user|>\nBye\n"
        "<|assistant|>\n"
    )


def test_llama2_puts_the_system_message_into_the_first_question():
    assert create_prompt_with_llama2_chat_format(CHAT, add_bos=False) == (
        "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST]  Yo  </s><s>[INST] Bye [/INST]"
    )


@pytest.mark.parametrize(
    "write", [create_prompt_with_tulu_chat_format, create_prompt_with_llama2_chat_format]
)
def test_an_unknown_role_is_refused(write):
    with pytest.raises(DataError, match="unknown role - got 'tool' at message 1"):
        write([CHAT[1], {"role": "tool", "content": ""}])


def test_a_lonely_system_message_is_refused():
    with pytest.raises(DataError, match="system message has no question to stand in"):
        create_prompt_with_llama2_chat_format(CHAT[:1])


def test_a_formatter_is_found_by_its_dotted_path():
    assert import_formatter(TULU) is create_prompt_with_tulu_chat_format


@pytest.mark.parametrize("dotted", ["no.such.module", "eval.templates.nothing", "plain"])
def test_a_path_to_nothing_is_refused(dotted):
    with pytest.raises(ConfigError, match=rf"chat formatting function .* at {dotted}"):
        import_formatter(dotted)


def test_a_path_to_what_cannot_be_called_is_refused():
    with pytest.raises(ConfigError, match="chat formatting function is none"):
        import_formatter("eval.templates.TULU")
