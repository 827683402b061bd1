import doctest

from hypothesis import given

from tulu_jax.chat import render, template
from tulu_jax.chat.template import MARKERS, segments_text

from .strategies import conversations, flagged, without_flags


def reference_text(messages):
    """The text as the reference builds it: one string, stripped at the end."""
    text = ""
    for message in messages:
        text += f"<|{message['role']}|>\n" + message["content"].strip()
        text += "</s>\n" if message["role"] == "assistant" else "\n"
    return text.strip()


def test_docstring_examples():
    assert doctest.testmod(template).failed == 0


@given(conversations())
def test_text_is_that_of_the_reference(messages):
    assert segments_text(render(messages), "</s>") == reference_text(messages)


@given(conversations())
def test_prompt_is_the_start_of_the_same_text_with_an_answer(messages):
    prompt = segments_text(render(messages, generation_prompt=True), "</s>")
    answered = [*messages, {"role": "assistant", "content": "x"}]
    assert segments_text(render(answered), "</s>") == prompt + "x</s>"
    assert prompt.endswith(MARKERS["assistant"])


def test_trained_segments():
    messages = [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    trained = [(s.kind, s.text) for s in render(messages) if s.trained]
    assert trained == [
        ("content", "a"), ("eos", ""), ("newline", "\n"),
        ("marker", "<|assistant|>\n"), ("content", "b"), ("eos", ""), ("newline", "\n"),
        ("content", "d"), ("eos", ""),
    ]  # fmt: skip


def test_nothing_of_an_answer_that_is_not_to_be_trained_is():
    messages = [
        {"role": "assistant", "content": "a", "train": False},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c", "train": False},
        {"role": "assistant", "content": "d", "train": False},
        {"role": "user", "content": "e", "train": True},
        {"role": "assistant", "content": "f", "train": True},
    ]
    assert [(s.kind, s.text) for s in render(messages) if s.trained] == [
        ("marker", "<|assistant|>\n"), ("content", "b"), ("eos", ""), ("newline", "\n"),
        ("content", "f"), ("eos", ""),
    ]  # fmt: skip


@given(flagged())
def test_flags_take_the_mask_from_their_answer_and_change_nothing_else(messages):
    plain = iter(render(without_flags(messages)))
    place = -1
    for segment in render(messages):
        place += segment.kind == "marker"
        message = messages[place]
        kept = message["role"] != "assistant" or message.get("train", True)
        expected = next(plain)
        assert segment == (expected if kept else expected._replace(trained=False))
    assert next(plain, None) is None


def test_conversation_that_ends_in_an_empty_question():
    assert segments_text(render([{"role": "user", "content": " "}]), "</s>") == "<|user|>"
