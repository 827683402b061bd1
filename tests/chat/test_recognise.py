"""The template of a tokenizer folder, recognised by what it does; and tokens added by name."""

import json

import pytest

from tulu_jax.chat import (
    TEMPLATES,
    checkpoint_template,
    encode,
    has_template,
    load_tokenizer,
    save_tokenizer_files,
)
from tulu_jax.errors import ConfigError, TokenizerError

from . import small_bpe
from .published import CHATML, LLAMA3, PUBLISHED
from .test_templates import CHAT
from .test_tokenizer import write_config

ADDED = ["<|im_start|>", "<|im_end|>"]


@pytest.fixture
def instruct(tmp_path):
    """A folder in Llama 3's shape with the special tokens of its instruct models."""
    (tmp_path / "instruct").mkdir()
    return small_bpe.llama3_instruct(tmp_path / "instruct")


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_templates_are_recognised(folder, name):
    added = "template" if TEMPLATES[name].tokens else ()
    save_tokenizer_files(load_tokenizer(folder, template="zephyr"), folder / "out")
    (folder / "out" / "chat_template.jinja").write_text(
        PUBLISHED[name].replace("{% generation %}", "").replace("{% endgeneration %}", "")
        if name != "zephyr"
        else PUBLISHED[name]
    )
    assert checkpoint_template(folder / "out").name == name
    tokenizer = load_tokenizer(folder / "out", template="checkpoint", add_tokens=added)
    assert tokenizer.template.name == name


@pytest.mark.parametrize("name", list(TEMPLATES))
@pytest.mark.parametrize("shape", ["spm", "bpe"])
def test_exported_templates_are_recognised_and_the_copy_is_equal(folder, instruct, name, shape):
    source = folder if shape == "spm" else instruct
    plain = load_tokenizer(source)
    lacking = [piece for piece in TEMPLATES[name].tokens if plain.token_id(piece) is None]
    ours = load_tokenizer(source, template=name, add_tokens=lacking)
    save_tokenizer_files(ours, folder / "out")
    copy = load_tokenizer(folder / "out", template="checkpoint")
    assert (copy.template.name, copy.fingerprint) == (name, ours.fingerprint)
    assert (copy.vocab_size, copy.pad_id, copy.stop_ids) == (
        ours.vocab_size, ours.pad_id, ours.stop_ids,
    )  # fmt: skip
    assert encode(CHAT, copy).tokens.tolist() == encode(CHAT, ours).tokens.tolist()


def test_the_template_of_earlier_exports_is_recognised(folder):
    file = folder / "chat_template.jinja"
    file.write_text("""\
{%- if messages and messages[0]['role'] != 'assistant' -%}{{- bos_token + ' ' -}}{%- endif -%}
{%- for message in messages -%}
{%- set content = message['content'] | trim -%}
{%- set tail = '' if loop.last and not add_generation_prompt else '\\n' -%}
{%- if message['role'] == 'assistant' -%}
{{- (bos_token + ' ' if loop.first else '') + '<|assistant|>\\n' + content + eos_token + tail -}}
{%- else -%}
{{- '<|' + message['role'] + '|>' -}}{{- '\\n' + content + tail if content or tail else '' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}""")
    assert checkpoint_template(folder).name == "tulu"


def test_where_the_template_lies(folder):
    assert not has_template(folder)
    with pytest.raises(
        TokenizerError, match=r"folder has no chat template - at .+ - expected chat"
    ):
        load_tokenizer(folder, template="checkpoint")
    write_config(folder, chat_template=PUBLISHED["llama2"])
    assert has_template(folder) and checkpoint_template(folder).name == "llama2"
    several = [{"name": "rag", "template": "x"}, {"name": "default", "template": LLAMA3}]
    write_config(folder, chat_template=several)
    assert checkpoint_template(folder).name == "llama3"
    (folder / "chat_template.jinja").write_text("\ufeff" + PUBLISHED["alpaca"], encoding="utf-8")
    assert checkpoint_template(folder).name == "alpaca"
    (folder / "chat_template.jinja").unlink()
    write_config(folder, chat_template=several[:1])
    with pytest.raises(TokenizerError, match=r"is not understood - got dict \['rag'\] at .+config"):
        load_tokenizer(folder, template="checkpoint")


DATED = "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: 1' }}" + LLAMA3
HANGS = "{% for i in range(10000000000) %}{% endfor %}"


@pytest.mark.parametrize(
    ("text", "got", "nearest"),
    [
        (DATED, "s.+ for .+u", "llama3"),
        ("{{ bos_token }}" + CHATML, r"'<s><\|im_start\|>user", "chatml"),
        (CHATML.replace("message['content']", "message['content'] | trim"), "for", "chatml"),
        (LLAMA3.replace(" | trim", ""), "for", "llama3"),
        ("{{ messages[0]['role'].__class__.__mro__ }}", "SecurityError", ""),
        (HANGS, r"\[OverflowError", ""),
        ("{% if %}", r"\[TemplateSyntaxError", ""),
        ("{{ raise_exception('no') }}", r"\[TemplateError: no", ""),
        ("{# #}", "'' for '", ""),
    ],
)
def test_other_templates_are_refused_by_name(folder, text, got, nearest):
    (folder / "chat_template.jinja").write_text(text)
    message = (
        rf"chat template of the tokenizer folder is none of those known here - got .*{got}.* at .+ "
        rf"- expected what '{nearest or '.+'}', the nearest, writes.+ name the template to use with"
    )
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder, template="checkpoint")


def test_rendering_strangers_templates_is_safe_and_quick(folder):
    (folder / "chat_template.jinja").write_text("{{ messages.append(1) }}")
    with pytest.raises(TokenizerError, match="SecurityError"):
        load_tokenizer(folder, template="checkpoint")


@pytest.mark.parametrize("pad", [None, "<pad>", "<unk>"])
def test_added_tokens_lie_behind_all_others(folder, pad):
    plain = load_tokenizer(write_config(folder, **({"pad_token": pad} if pad else {})))
    more = load_tokenizer(folder, template="chatml", add_tokens=ADDED)
    assert more.vocab_size == plain.vocab_size + 2 and more.pad_id == plain.pad_id
    ids = [more.token_id(piece) for piece in ADDED]
    assert ids == [plain.vocab_size, plain.vocab_size + 1]
    assert [more.piece(i) for i in ids] == ADDED and set(ids) <= more.special_ids
    assert not set(more.encode_text("<|im_start|>")) & set(ids)
    assert more.decode(ids, skip_special=False) == "".join(ADDED) and more.decode(ids) == ""
    assert more.fingerprint != plain.fingerprint
    assert more.fitting(plain.vocab_size) is more
    again = load_tokenizer(folder, template="chatml", add_tokens="template")
    assert again.fingerprint == more.fingerprint


def test_added_tokens_of_a_bpe_tokenizer(instruct):
    plain = load_tokenizer(instruct)
    write_config(instruct, **json.loads((instruct / "tokenizer_config.json").read_text())
                 | {"pad_token": "<pad>"})  # fmt: skip
    more = load_tokenizer(instruct, template="chatml", add_tokens="template")
    assert (more.pad_id, more.vocab_size) == (plain.vocab_size, plain.vocab_size + 3)
    assert more.token_id("<|im_start|>") == plain.vocab_size + 1
    assert more.fitting(plain.vocab_size) is more
    save_tokenizer_files(more, instruct / "out")
    copy = load_tokenizer(instruct / "out", template="chatml")
    assert copy.fingerprint == more.fingerprint and copy.vocab_size == more.vocab_size


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ([""], ConfigError, r"ADD_TOKENS is not understood - got \[''\] - expected 'template', or"),
        ([" x"], ConfigError, "ADD_TOKENS is not understood"),
        (["x", "x"], ConfigError, "ADD_TOKENS is not understood"),
        (["\ud800"], ConfigError, r"ADD_TOKENS is not understood - got .*ud800"),
        (["a\0"], ConfigError, "ADD_TOKENS is not understood"),
        ([3], ConfigError, "ADD_TOKENS is not understood"),
        ("<|im_end|>", ConfigError, r"ADD_TOKENS is not understood - got '<\|im_end\|>'"),
        (True, ConfigError, "ADD_TOKENS is not understood - got True"),
        (
            "template",
            ConfigError,
            r"ADD_TOKENS adds nothing - got .+ the chat template 'tulu'",
        ),
        (["</s>"], TokenizerError, r"tokens to add are there already - got '</s>' at .+ lacks"),
        (["<|new|>", "▁the"], TokenizerError, r"tokens to add are there already - got '▁the'"),
    ],
)
def test_tokens_that_cannot_be_added(folder, value, kind, message):
    with pytest.raises(kind, match=message):
        load_tokenizer(folder, add_tokens=value)


def test_adding_what_the_template_has_is_refused(instruct):
    with pytest.raises(TokenizerError, match=r"are there already - got '<\|start_header_id\|>'"):
        load_tokenizer(instruct, template="llama3", add_tokens="template")


def test_special_tokens_that_the_settings_add(folder):
    size = load_tokenizer(folder).vocab_size
    tokens = {str(size): {"content": "<|im_end|>", "special": True}, str(size + 1): "<|im_start|>"}
    write_config(folder, added_tokens_decoder=tokens, eos_token="<|im_end|>")
    tokenizer = load_tokenizer(folder, template="chatml")
    assert (tokenizer.eos_id, tokenizer.end_id, tokenizer.stop_ids) == (size, size, (size,))
    assert tokenizer.vocab_size == size + 2
    with pytest.raises(TokenizerError, match=r"adds tokens that its model lacks - got \{361: '<"):
        load_tokenizer(folder)  # only with the template is it known to be special
    write_config(folder, added_tokens_decoder={str(size + 1): tokens[str(size)]})
    with pytest.raises(TokenizerError, match=r"expected special tokens only, with the ids from"):
        load_tokenizer(folder)


def test_a_copied_folder_keeps_its_template(folder):
    from tulu_jax.chat import copy_tokenizer_files

    (folder / "chat_template.jinja").write_text(PUBLISHED["llama2"])
    copy_tokenizer_files(folder, folder / "run" / "tokenizer")
    assert checkpoint_template(folder / "run").name == "llama2"
