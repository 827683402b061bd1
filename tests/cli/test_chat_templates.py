"""Chat templates from the command line: trained, generated with, exported; tokens added by name."""

import json

import jax
import numpy as np
import pytest
from train.small import leave_out_what_others_test

from tests.chat import small_bpe
from tests.chat.published import CHATML, LLAMA3
from tulu_jax.chat import encode, encode_prompt, load_tokenizer
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import CheckpointReader
from tulu_jax.cli.main import main
from tulu_jax.generate import Engine
from tulu_jax.models import LlamaConfig, abstract_params

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2? "}]
ROWS = [
    {"messages": [*QUESTION, {"role": "assistant", "content": f"It is {n} camels. "}]}
    for n in range(24)
]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module", autouse=True)
def bare_runs():
    """Runs of three steps without what takes most of them."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_what_others_test(patch.setattr)
        yield


def write_model(folder, tokenizer):
    """A LLaMA of two layers with random weights and this tokenizer's vocabulary."""
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, d_model=16, d_ff=24, num_layers=2, num_heads=2,
        num_kv_heads=1, head_dim=8, max_length=128, norm_eps=1e-5, rope_theta=500_000.0,
        bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) * 0.5).astype(np.float32), abstract_params(config)
    )
    hf.save(folder, config, params)


@pytest.fixture(scope="module")
def instruct(tmp_path_factory):
    """A Llama-3-shaped instruct model with its published template, and data to go on with."""
    place = tmp_path_factory.mktemp("llama3")
    (place / "model").mkdir()
    tokens = small_bpe.llama3_instruct(tmp_path_factory.mktemp("tokenizer"))
    write_model(place / "model", load_tokenizer(tokens))
    for file in tokens.iterdir():
        (place / "model" / file.name).write_bytes(file.read_bytes())
    (place / "model" / "chat_template.jinja").write_text(LLAMA3)
    (place / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return place


def train(place, name, *overrides):
    return main([
        "train", "--gin_file=runs/finetune.gin", f"--gin.MODEL_DIR={place / name}",
        f"--gin.INITIAL_CHECKPOINT_PATH={place / 'model'}", f"--gin.TOKENIZER={place / 'model'}",
        f"--gin.MIXTURE_OR_TASK_NAME={place / 'rows.jsonl'}", f"--gin.DATA_DIR={place / 'data'}",
        "--gin.TASK_FEATURE_LENGTHS={'targets': 96}", "--gin.BATCH_SIZE=8", "--gin.TRAIN_STEPS=3",
        "--gin.LEARNING_RATE=0.01", "--gin.DTYPE=float32", "--gin.REMAT=none", *overrides,
    ])  # fmt: skip


def prepare(place, *template):
    """The store that a run then finds; one that finds none makes it in a process of its own."""
    return main([
        "data", "prepare", str(place / "rows.jsonl"), "--tokenizer", str(place / "model"),
        "--max_length=96", "--data_dir", str(place / "data"), "--num_processes=1", *template,
    ])  # fmt: skip


@pytest.fixture(scope="module")
def tuned(instruct):
    """The run that went on with the checkpoint's own template, and its export."""
    assert prepare(instruct, "--chat_template=checkpoint") == 0
    assert train(instruct, "run", "--gin.CHAT_TEMPLATE=checkpoint") == 0
    words = ["export", "--model_dir", str(instruct / "run"), "--output", str(instruct / "out")]
    assert main(words) == 0
    return instruct


def test_the_checkpoint_says_which_template_was_trained(tuned):
    meta = CheckpointReader(tuned / "run").meta
    assert meta["chat_template"] == "llama3"
    ours = load_tokenizer(tuned / "model", template="llama3")
    assert meta["tokenizer"] == ours.fingerprint
    generation = json.loads((tuned / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == ours.end_id == ours.eos_id


def test_the_exported_model_answers_in_transformers_as_here(tuned, capsys):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    out = tuned / "out"
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    prompt = theirs.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ours = load_tokenizer(out, template="checkpoint")
    assert ours.template.name == "llama3"
    ids = encode_prompt(QUESTION, ours)
    assert prompt["input_ids"][0].tolist() == ids.tolist()
    config, params = hf.load(out)
    engine = Engine(config, params, slots=1, stop_ids=ours.stop_ids)
    answer = engine.generate([ids.tolist()], max_new_tokens=24)[0].tokens
    with torch.no_grad():
        made = model.generate(**prompt, max_new_tokens=24, do_sample=False)
    whole = made[0, len(ids) :].tolist()
    assert answer and [token for token in whole if token not in ours.stop_ids] == answer
    assert main(["generate", "--model", str(out), "--prompt", "2+2?", "--max_new_tokens", "9"]) == 0
    assert "Chat template: llama3" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["run", "out"])
def test_another_template_than_the_models_is_said_aloud(tuned, folder, capsys):
    ask = ["generate", "--model", str(tuned / folder), "--prompt", "2+2?", "--max_new_tokens", "2"]
    for name in ("alpaca", "tulu"):
        assert main([*ask, "--chat_template", name]) == 0
        said = f"Chat template: {name}, though the model's own is llama3: leave --chat_template out"
        assert said in " ".join(capsys.readouterr().err.split())
    assert main([*ask, "--chat_template", "llama3"]) == 0
    assert "though" not in capsys.readouterr().err


def test_the_template_of_another_tokenizer_is_said_aloud(instruct, tmp_path, capsys):
    """It was not: a model of Llama 3's format answered in Tülu's as if that were its own."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).write_bytes((instruct / "model" / name).read_bytes())
    assert (
        main(["import", "--hf", str(instruct / "model"), "--model_dir", str(tmp_path / "r")]) == 0
    )
    for folder in (instruct / "model", tmp_path / "r"):
        ask = ["generate", "--model", str(folder), "--prompt", "2+2?", "--max_new_tokens", "2"]
        capsys.readouterr()
        assert main([*ask, "--tokenizer", str(bare)]) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert "Chat template: tulu, though the model's own is llama3: leave --tokenizer" in said
        assert "not the model's own: token" not in said
        assert main([*ask, "--tokenizer", str(instruct / "model")]) == 0
        assert "though" not in capsys.readouterr().err


def test_another_vocabulary_is_said_aloud(instruct, tmp_path, capsys):
    """Answers in the wrong tokens are no error anywhere."""
    other = tmp_path / "other"
    other.mkdir()
    for file in (instruct / "model").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    definition = json.loads((other / "tokenizer.json").read_text())
    vocab = definition["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (other / "tokenizer.json").write_text(json.dumps(definition))
    ask = ["generate", "--model", str(instruct / "model"), "--prompt", "2+2?"]
    assert main([*ask, "--max_new_tokens", "2", "--tokenizer", str(other)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    first = min(vocab["a"], vocab["b"])
    assert f"Tokenizer: not the model's own: token {first} is " in said


def test_run_folder_and_export_give_the_same_answer(tuned, capsys):
    said = []
    for folder in ("run", "out"):
        words = ["generate", "--model", str(tuned / folder), "--prompt", "2+2?"]
        assert main([*words, "--max_new_tokens", "12"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_a_run_goes_on_with_the_same_template_only(tuned, capsys):
    assert train(tuned, "run", "--gin.CHAT_TEMPLATE=llama3", "--gin.TRAIN_STEPS=4") == 0
    out = capsys.readouterr().out
    assert "Chat template: llama3" in out and "Resuming from step 3" in out
    assert train(tuned, "run", "--gin.CHAT_TEMPLATE=chatml", "--gin.ADD_TOKENS=template") == 2
    assert "checkpoint is of a run with another" in capsys.readouterr().err
    assert train(tuned, "run", "--gin.CHAT_TEMPLATE=tulu") == 2
    err = capsys.readouterr().err
    assert "checkpoint is of a run with another chat template - got tulu now" in err
    assert "expected llama3, as saved" in err


def test_added_tokens_are_trained_and_exported(instruct, capsys):
    added = ("--gin.CHAT_TEMPLATE=chatml", "--gin.ADD_TOKENS=template")
    assert train(instruct, "more", *added) == 0
    before = load_tokenizer(instruct / "model").vocab_size
    assert f"Vocabulary with ADD_TOKENS: {before + 2} rows" in capsys.readouterr().out
    out = instruct / "more_out"
    assert main(["export", "--model_dir", str(instruct / "more"), "--output", str(out)]) == 0
    config, params = hf.load(out)
    copy = load_tokenizer(out, template="checkpoint")
    assert copy.template.name == "chatml" and copy.vocab_size == config.vocab_size == before + 2
    assert params["embedding"].shape[0] == before + 2
    stops = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert copy.end_id == before + 1 and set(stops) == {copy.eos_id, copy.end_id}
    wanted = load_tokenizer(instruct / "model", template="chatml", add_tokens="template")
    assert copy.fingerprint == wanted.fingerprint
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    for template in (None, CHATML):
        made = theirs.apply_chat_template(
            ROWS[0]["messages"], chat_template=template, tokenize=True, return_dict=True
        )
        assert made["input_ids"] == encode(ROWS[0]["messages"], copy).tokens.tolist()
    assert main(["generate", "--model", str(instruct / "more"), "--prompt", "2+2?",
                 "--max_new_tokens", "8"]) == 0  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--gin.CHAT_TEMPLATE=llama4"], "unknown chat template - got 'llama4' at CHAT_TEMPLATE"),
        (["--gin.CHAT_TEMPLATE=chatml"], "needs tokens that the tokenizer lacks - got no <|im_sta"),
        (["--gin.ADD_TOKENS=[7]"], "ADD_TOKENS is not understood - got [7]"),
        (["--gin.ADD_TOKENS=template"], "ADD_TOKENS adds nothing"),
        (["--gin.CHAT_TEMPLATE=llama3", "--gin.ADD_TOKENS=template"], "are there already"),
        (["--gin.CHAT_TEMPLATE=llama2", "--gin.ENCODING=paper"], "that of the paper's chat templ"),
        (["--gin.ADD_TOKENS=['<|x|>']", "--gin.LORA=@LoraConfig()"],
         "tokens cannot be added where the embedding is frozen"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_data_are_read(instruct, capsys, overrides, message):
    assert train(instruct, "never", *overrides) == 2
    assert message in capsys.readouterr().err
    assert not (instruct / "never" / "checkpoints").exists()


def test_tulus_template_where_the_tokenizer_has_another_is_said(instruct, capsys):
    assert prepare(instruct) == 0
    assert train(instruct, "plain") == 0
    out = capsys.readouterr().out
    assert "Chat template: tulu, though the tokenizer's folder has its own (llama3)" in out
    assert CheckpointReader(instruct / "plain").meta["chat_template"] == "tulu"


def test_a_prompt_that_the_template_cannot_hold_is_named(tuned, tmp_path, capsys):
    rows = [{"messages": [{"role": role, "content": "x"} for role in ("user", "user")]}]
    (tmp_path / "in.jsonl").write_text(json.dumps(rows[0]))
    words = ["generate", "--model", str(tuned / "out"), "--chat_template", "llama2"]
    assert main([*words, "--input", str(tmp_path / "in.jsonl")]) == 2
    err = capsys.readouterr().err
    assert "does not fit the chat template 'llama2' - got the role 'user'" in err
    assert "in.jsonl" in err and "message 1" in err


def test_added_rows_need_a_folder_that_can_grow(tuned, capsys):
    path = f"--gin.INITIAL_CHECKPOINT_PATH={tuned / 'run'}"
    assert train(tuned, "grown", path, "--gin.ADD_TOKENS=['<|x|>']") == 2
    err = capsys.readouterr().err
    assert "rows for added tokens cannot be added to the weights of a run folder" in err
    assert "export the run with `tulu export`" in err


def test_data_commands_know_the_template(instruct, capsys):
    common = (str(instruct / "rows.jsonl"), "--tokenizer", str(instruct / "model"))
    chosen = ("--chat_template", "checkpoint")
    assert main(["data", "inspect", *common, *chosen, "--n", "1"]) == 0
    found = capsys.readouterr()
    assert "<|eot_id|><|start_header_id|>assistant<|end_header_id|>" in found.out
    assert "Chat template: llama3, the tokenizer's own" in found.err
    added = ("--chat_template", "chatml", "--add_tokens", "template")
    assert main(["data", "inspect", *common, *added, "--n", "1"]) == 0
    assert "<|im_start|>assistant" in capsys.readouterr().out
    assert main(["data", "inspect", *common, "--chat_template", "no", "--n", "1"]) == 2
    assert "unknown chat template - got 'no'" in capsys.readouterr().err


def test_a_model_whose_template_is_not_known(instruct, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    for file in (instruct / "model").iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    text = LLAMA3.replace(" | trim", "")
    (tmp_path / "model" / "chat_template.jinja").write_text(text)
    ask = ["generate", "--model", str(tmp_path / "model"), "--max_new_tokens", "3", "--prompt", "x"]
    assert main(ask) == 2
    assert "is none of those known here" in capsys.readouterr().err
    assert main([*ask, "--raw"]) == 0
    assert main([*ask, "--chat_template", "llama3"]) == 0
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["import", "--hf", str(tmp_path / "model"), "--model_dir", str(run)]) == 0
    assert main(["export", "--model_dir", str(run), "--output", str(out)]) == 0
    assert (out / "chat_template.jinja").read_text() == text, "not replaced by another"
