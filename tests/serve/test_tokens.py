"""`/tokenize`, `/detokenize`, `/tokenizer_info`, and the texts and places of tokens."""

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tulu_jax.chat import encode_prompt
from tulu_jax.serve.tokens import Offsets, TokenTexts

from .served import MAX_LENGTH, TOKENIZER

MESSAGES = [{"role": "user", "content": "Name a colour."}]


def post(client, path, **body):
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_tokens_of_texts_and_back(client):
    ids = TOKENIZER.encode_text("Hi there 猫")
    found = post(client, "/tokenize", prompt="Hi there 猫", add_special_tokens=False)
    assert found == {
        "count": len(ids), "max_model_len": MAX_LENGTH, "tokens": ids, "token_strs": None
    }  # fmt: skip
    found = post(client, "/tokenize", prompt="Hi there 猫", return_token_strs=True)
    assert found["tokens"] == [TOKENIZER.bos_id, *ids]
    assert len(found["token_strs"]) == found["count"] and found["token_strs"][0] == "<s>"
    assert post(client, "/detokenize", tokens=ids) == {"prompt": "Hi there 猫"}
    assert post(client, "/detokenize", tokens=found["tokens"])["prompt"].startswith("<s>")
    assert post(client, "/detokenize", tokens=[]) == {"prompt": ""}


def test_tokens_of_conversations(client):
    found = post(client, "/tokenize", messages=MESSAGES)
    assert found["tokens"] == encode_prompt(MESSAGES, TOKENIZER).tolist()


def test_a_name_of_a_special_token_alone_is_that_token(client):
    """So clients find the ids; within a text it is text, which nobody can smuggle in."""
    info = client.get("/tokenizer_info").json()
    for name in ("bos_token", "eos_token"):
        found = post(client, "/tokenize", prompt=info[name], add_special_tokens=False)
        assert found["tokens"] == [TOKENIZER.named_ids[name]]
        within = post(client, "/tokenize", prompt="a" + info[name], add_special_tokens=False)
        assert not TOKENIZER.special_ids.intersection(within["tokens"])


def test_the_template_that_is_told_renders_conversations(client):
    info = client.get("/tokenizer_info").json()
    template = jinja2.Environment().from_string(info["chat_template"])
    text = template.render(messages=MESSAGES, add_generation_prompt=True, bos_token="<s>")
    assert text == "<s> <|user|>\nName a colour.\n<|assistant|>\n"
    assert info["add_bos_token"] is True and info["model_max_length"] == MAX_LENGTH


@pytest.fixture(scope="module")
def texts():
    return TokenTexts(TOKENIZER)


def test_parts_of_characters_are_shown_as_bytes(texts):
    ids = TOKENIZER.encode_text("猫")
    shown = [texts.text_of(token) for token in ids]
    assert "bytes:\\xe7" in shown
    assert b"".join(map(texts.bytes_of, ids)).decode().strip() == "猫"


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet="ab é猫🙂\n", max_size=30), st.integers(1, 5))
def test_places_are_those_of_characters(text, portion):
    texts = TokenTexts(TOKENIZER)
    ids = [*TOKENIZER.start_ids, *TOKENIZER.encode_text(text)]
    offsets = Offsets(texts, at_start=True)
    places = []
    for start in range(0, len(ids), portion):
        places += offsets.next(ids[start : start + portion])
    assert places == sorted(places)
    end = offsets.next([TOKENIZER.eos_id])
    assert end == [len(TOKENIZER.decode(ids))]
