"""gin files and overrides: what loads, and how every mistake is named."""

import dataclasses
import logging
import re
from pathlib import Path

import jax
import pytest

from tulu_jax import models
from tulu_jax.cli.gin_config import (
    MACRO_FIELDS,
    MACROS,
    SETTINGS,
    load_gin_model,
    load_train_config,
    parse_overrides,
    to_gin,
)
from tulu_jax.cli.gin_files import MACRO, config_folder, read_bindings
from tulu_jax.errors import ConfigError
from tulu_jax.models import abstract_params

DEMO = ["runs/demo.gin"]
PUBLISHED = {
    "llama_7b": 6_738_415_616,
    "llama_13b": 13_015_864_320,
    "llama_30b": 32_528_943_616,
    "llama_65b": 65_285_660_672,
    "llama_58m": 58_073_600,
    "llama_1b": 1_100_048_384,
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama2_70b": 68_976_648_192,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "llama31_8b": 8_030_261_248,
    "llama31_70b": 70_553_706_496,
    "llama32_1b": 1_235_814_400,
    "llama32_3b": 3_212_749_824,
    "tinyllama_1.1b": 1_100_048_384,
    "mistral_7b": 7_241_732_096,
    "opt_125m": 125_239_296,
    "opt_350m": 331_196_416,
    "opt_1.3b": 1_315_758_080,
    "opt_2.7b": 2_651_596_800,
    "opt_6.7b": 6_658_473_984,
    "opt_13b": 12_853_473_280,
    "opt_30b": 29_974_540_288,
    "opt_66b": 65_719_701_504,
    "pythia_70m": 70_426_624,
    "pythia_160m": 162_322_944,
    "pythia_410m": 405_334_016,
    "pythia_1b": 1_011_781_632,
    "pythia_1.4b": 1_414_647_808,
    "pythia_2.8b": 2_775_208_960,
    "pythia_6.9b": 6_857_302_016,
    "pythia_12b": 11_846_072_320,
}
MODELS = sorted(path.stem for path in (config_folder() / "models").glob("*.gin"))
RUNS = sorted(path.stem for path in (config_folder() / "runs").glob("*.gin"))


def load(*overrides, files=DEMO):
    return load_train_config(files, parse_overrides(["--gin.MODEL_DIR=x", *overrides]))


def test_demo_loads():
    config = load()
    assert config.model_dir == str(Path.cwd() / "x") and config.data.mixture == "tulu_demo"
    assert config.optimizer.learning_rate == 3e-3 and config.compute.dtype == "float32"
    assert config.seed == config.data.seed == 42


def test_values_need_no_quotes_of_their_own():
    config = load(
        "--gin.RAW_DIR=/raw data/it's",
        "--gin.LEARNING_RATE=1e-5",
        "--gin.CLIP_NORM=None",
        "--gin.TASK_FEATURE_LENGTHS={'targets': 64}",
        "--gin.LOSS_NORMALIZATION='paper'",
        "--gin.OptimizerConfig.b2=0.95",
        "--gin.EPOCHS=%BATCH_SIZE",
    )
    assert config.data.raw_dir == "/raw data/it's"
    assert config.optimizer.learning_rate == 1e-5 and config.optimizer.clip_norm is None
    assert config.data.length == 64 and config.loss_normalization == "paper"
    assert config.optimizer.b2 == 0.95 and config.data.epochs == config.data.batch_size


def test_later_files_win(tmp_path):
    (tmp_path / "a.gin").write_text("BATCH_SIZE = 16\nLOG_PERIOD = 3\n")
    (tmp_path / "b.gin").write_text("BATCH_SIZE = 64\n")
    files = [*DEMO, str(tmp_path / "a.gin"), str(tmp_path / "b.gin")]
    config = load(files=files)
    assert (config.data.batch_size, config.log_period) == (64, 3)
    assert load("--gin.BATCH_SIZE=8", files=files).data.batch_size == 8


def test_a_file_may_have_names_of_its_own(tmp_path):
    (tmp_path / "own.gin").write_text(
        "include 'runs/demo.gin'\nPEAK = 0.5\nLEARNING_RATE = %PEAK\n"
    )
    assert load(files=[str(tmp_path / "own.gin")]).optimizer.learning_rate == 0.5


def test_nothing_is_left_over_from_the_load_before():
    load("--gin.OptimizerConfig.b1=0.5")
    assert load().optimizer.b1 == 0.9


def test_loading_says_nothing(caplog, capfd):
    """gin logs an error for each folder in which an included file is not."""
    with caplog.at_level(logging.WARNING):
        load()
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_folders_named_like_recipes_do_no_harm(tmp_path, monkeypatch):
    """`runs` is also where users keep their runs, and may lie on Python's path."""
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert load().data.mixture == "tulu_demo"


MIXING = [
    "--gin.MIXTURE_OR_TASK_NAME=tulu_v1_human,chats/own.jsonl",
    "--gin.DataConfig.max_examples={'tulu_cot': 50000}",
    "--gin.DataConfig.options={'tulu_oasst1': {'rule': 'every'}}",
    "--gin.DataConfig.seeds={'tulu_cot': 7}",
    "--gin.DataConfig.schedule=rates",
    "--gin.DataConfig.rates={'tulu_dolly': 1e4}",
    "--gin.DataConfig.rate_maximum=20000",
]


def test_what_is_mixed_comes_from_gin():
    data = load(*MIXING).data
    assert data.mixture == "tulu_v1_human,chats/own.jsonl" and data.schedule == "rates"
    assert data.max_examples == {"tulu_cot": 50_000} and data.seeds == {"tulu_cot": 7}
    assert data.options == {"tulu_oasst1": {"rule": "every"}}
    assert data.rates == {"tulu_dolly": 1e4} and data.rate_maximum == 20_000


@pytest.mark.parametrize(
    "overrides", [[], ["--gin.CLIP_NORM=None", "--gin.RAW_DIR=a'b\"c"], MIXING]
)
def test_resolved_settings_load_to_an_equal_config(tmp_path, overrides):
    check_settings_load_again(tmp_path, load(*overrides))


@pytest.mark.parametrize("name", ["llama32_1b", "opt_350m", "pythia_70m"])
def test_resolved_settings_of_every_family_load_again(tmp_path, name):
    check_settings_load_again(tmp_path, load(files=[*DEMO, f"models/{name}.gin"]))


NOT_READ = (
    r"setting has no effect - got MODEL_DIR = 'y' - expected TrainConfig.model_dir to read it, "
    r"which is set by itself - set --gin.TrainConfig.model_dir=\.\.\., or leave the other out"
)


def check_settings_load_again(tmp_path, config):
    (tmp_path / "settings.gin").write_text(to_gin(config))
    assert load_train_config([str(tmp_path / "settings.gin")], []) == config
    with pytest.raises(ConfigError, match=NOT_READ):
        load_train_config([str(tmp_path / "settings.gin")], ["MODEL_DIR = 'y'"])


@pytest.mark.parametrize("name", MODELS)
def test_model_files(name):
    config = load(f"--gin.MIXTURE_OR_TASK_NAME={name}", files=[*DEMO, f"models/{name}.gin"]).model
    expected = PUBLISHED.get(name)
    leaves = jax.tree.leaves(abstract_params(config))
    assert config.num_params == sum(leaf.size for leaf in leaves)
    assert expected is None or config.num_params == expected


@pytest.mark.parametrize("name", MODELS)
def test_a_model_file_sets_every_field(name):
    """So that nothing is left of the model that a run file had included before it."""
    text = (config_folder() / "models" / f"{name}.gin").read_text()
    kind = re.search(r"^MODEL = @(\w+)\(\)$", text, re.MULTILINE)[1]
    for field in dataclasses.fields(getattr(models, kind)):
        assert f"\n{kind}.{field.name} = " in text, field.name
    if "@RopeScaling()" in text:
        for field in dataclasses.fields(models.RopeScaling):
            assert f"\nRopeScaling.{field.name} = " in text, field.name


def test_all_published_sizes_are_there():
    assert set(PUBLISHED) <= set(MODELS)


@pytest.mark.parametrize("name", RUNS)
def test_run_files(name):
    files = [f"runs/{name}.gin", "models/llama_tiny.gin"]
    fill = [
        "--gin.MIXTURE_OR_TASK_NAME=tulu_demo",
        "--gin.TOKENIZER=tok",
        "--gin.INITIAL_CHECKPOINT_PATH=base",
    ]
    config = load(*fill, files=files)
    assert dataclasses.is_dataclass(config.data)


OWN_DEFAULTS = {"RANDOM_SEED", "DTYPE", "REMAT", "MODEL_DIR", "MIXTURE_OR_TASK_NAME", "TOKENIZER"}
"""Macros whose default differs from a field's, or whose field has none."""


def test_every_macro_is_bound_by_the_defaults():
    """The recipe states each default a second time, and what reads it: as the fields do."""
    found = list(read_bindings(["runs/finetune.gin"], []))
    defaults = {one.name: one.value for one in found if one.kind == MACRO}
    readers = [(name, one.name) for one in found for name in one.macros]
    meant = [(name, field) for name, fields in MACRO_FIELDS.items() for field in fields]
    moved = (
        ("TASK_FEATURE_LENGTHS", "DataConfig.length"),
        ("TASK_FEATURE_LENGTHS", "row_length.feature_lengths"),
    )
    assert set(readers) - {moved[1]} == set(meant) - {moved[0]} and set(defaults) == set(MACROS)
    fields = {
        f"{kind.__name__}.{field.name}": field
        for kind in SETTINGS
        for field in dataclasses.fields(kind)
    }
    for name, places in MACRO_FIELDS.items():
        field = fields[places[0]]
        made = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if made else field.default
        default = list(default) if isinstance(default, tuple) else default
        if name == "TASK_FEATURE_LENGTHS":
            default = {"targets": default}
        assert (defaults[name] == default) is (name not in OWN_DEFAULTS), name
        assert field.metadata["help"], name


UNKNOWN = "unknown setting - got"
MISTAKES = {
    "--gin.LEARNING_RAT=1e-3": rf"{UNKNOWN} LEARNING_RAT - expected LEARNING_RATE - `tulu train",
    "--gin.learning_rate=1e-3": rf"{UNKNOWN} learning_rate - expected LEARNING_RATE",
    "--gin.ZZZ=1": rf"{UNKNOWN} ZZZ - expected a name of the list",
    "--gin.OptimizrConfig.b1=0.5": rf"{UNKNOWN} OptimizrConfig at the command line: "
    r"OptimizrConfig.b1 = 0.5 - expected OptimizerConfig",
    "--gin.OptimizerConfig.learning_rat=1": rf"{UNKNOWN} OptimizerConfig.learning_rat at .* - "
    "expected learning_rate",
    "--gin.DataConfig.zzz=1": rf"{UNKNOWN} DataConfig.zzz .* expected mixture or tokenizer or len",
    "--gin.MODEL=@LlamaCfg()": rf"{UNKNOWN} LlamaCfg at .* - expected LlamaConfig",
    "--gin.LEARNING_RATE=%BATCH_SIZ": "setting is used but not set - got %BATCH_SIZ.* - expected "
    "BATCH_SIZE",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 8}": "TASK_FEATURE_LENGTHS is not understood - got "
    "{'inputs': 8} - expected {'targets': tokens in a row}",
    "--gin.TASK_FEATURE_LENGTHS=8": "TASK_FEATURE_LENGTHS is not understood - got 8",
    "--gin.LEARNING_RATE=fast": "OptimizerConfig.learning_rate is not a number - got 'fast'",
    "--gin.LEARNING_RATE=-1": "OptimizerConfig.learning_rate is out of range - got -1",
    "--gin.TRAIN_STEPS=10.5": "TrainConfig.train_steps is not a whole number - got 10.5",
    "--gin.MODEL_DIR=123": "TrainConfig.model_dir is not text - got 123",
    "--gin.MESH_FSDP=2.5": "MeshConfig.fsdp is not a whole number",
    "--gin.UNROLL_LAYERS=0": "ComputeConfig.unroll_layers is out of range - got 0",
    "--gin.LlamaConfig.num_heads=5": "query heads cannot share key/value heads evenly",
    "--gin.MIXTURE_OR_TASK_NAME=None": "mixture is not set - got None",
    "--gin.MODEL=None": "the run has no model",
    "--gin.MODEL=llama_7b": r"MODEL is a name, not a model's config - got 'llama_7b' - expected "
    r"@LlamaConfig\(\) .* - add --gin_file=models/llama_7b.gin in place of it",
    "--gin.LORA=True": r"TrainConfig.lora is not @LoraConfig\(\) - got True - expected @LoraConf",
    "--gin.LORA_RANK=8": r"setting has no effect - got LORA_RANK = 8 - expected a run with "
    r"LoraConfig, which alone reads it - add --gin.LORA=@LoraConfig\(\), or leave the setting out",
    "--gin.LoraConfig.rank=8": "setting has no effect - got LoraConfig.rank = 8 - expected a run ",
    "--gin.train/OptimizerConfig.b1=0.5": "setting has no effect - got train/OptimizerConfig.b1 = "
    "0.5 - expected no scope: nothing in the run is in scope 'train' - leave the scope out",
    "--gin.RopeScaling.factor=2.0": "setting has no effect .* RopeScaling",
    "--gin.MODEL_DIR=az://bucket/run": "MODEL_DIR is an address that is not supported",
    "--gin.RANDOM_SEED=36893488147419103232": "seed is out of range - got 36893488147419103232",
    "--gin.LEARNING_RATE=1e999": "OptimizerConfig.learning_rate is out of range - got inf",
    "--gin.MODEL=%MODEL": "gin settings cannot be read",
    "--gin.MODEL_DIR=None": "MODEL_DIR is not set - expected run folder .* --gin.MODEL_DIR=",
    "--lr=1": "unknown argument - got '--lr=1' - expected --gin.NAME=VALUE",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_mistakes_are_named(override):
    with pytest.raises(ConfigError, match=MISTAKES[override]) as error:
        load(override)
    assert "\n" not in str(error.value)


def test_a_model_without_its_fields_is_told_what_it_lacks():
    """Python's words were printed: LlamaConfig.__init__() missing 9 required arguments."""
    files = ["runs/finetune.gin"]
    said = (
        r"LlamaConfig lacks settings that have no default - got nothing for vocab_size, .*, "
        r"norm_eps - expected a value for each - add --gin_file=models/NAME.gin, a "
    )
    with pytest.raises(ConfigError, match=said) as error:
        load("--gin.MODEL=@LlamaConfig()", files=files)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"LlamaConfig lacks settings .* for vocab_size, "):
        load_gin_model(files, ["MODEL = @LlamaConfig()"])
    with pytest.raises(ConfigError, match=r"RopeScaling lacks .* nothing for kind, factor - "):
        load("--gin.LlamaConfig.rope_scaling=@RopeScaling()")


def test_a_setting_that_another_overrides_is_refused(tmp_path):
    own = tmp_path / "own.gin"
    own.write_text("OptimizerConfig.learning_rate = 1e-4\n")
    with pytest.raises(
        ConfigError, match=r"no effect - got LEARNING_RATE = 1e-3 - expected Optimi"
    ):
        load("--gin.LEARNING_RATE=1e-3", files=[*DEMO, str(own)])


def test_a_file_of_ones_own_may_not_set_what_nothing_reads(tmp_path):
    inner, own = tmp_path / "inner.gin", tmp_path / "own.gin"
    inner.write_text("LORA_ALPHA = 3\n")
    own.write_text(f"include '{inner}'\n")
    with pytest.raises(ConfigError, match="no effect - got LORA_ALPHA = 3"):
        load(files=[*DEMO, str(own)])
    inner.write_text("LORA_ALPHA = 3\nLORA = @LoraConfig()\nINITIAL_CHECKPOINT_PATH = 'b'\n")
    assert load(files=[*DEMO, str(own)]).lora.alpha == 3


def test_a_byte_order_mark_in_a_file_is_none_of_its_text(tmp_path):
    (tmp_path / "own.gin").write_bytes(b"\xef\xbb\xbfBATCH_SIZE = 64\r\n")
    assert load(files=[*DEMO, str(tmp_path / "own.gin")]).data.batch_size == 64


def test_files_are_found_as_users_name_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own [1].gin").write_text("BATCH_SIZE = 64\n")
    assert load(files=[*DEMO, "~/x/../own [1].gin"]).data.batch_size == 64


def test_model_dir_is_required():
    with pytest.raises(ConfigError, match=r"MODEL_DIR is not set .* add --gin.MODEL_DIR=\.\.\."):
        load_train_config(DEMO, [])


@pytest.mark.parametrize("name", ["runs/nope.gin", "/nowhere/run.gin"])
def test_missing_file(name):
    with pytest.raises(
        ConfigError, match=rf"gin file cannot be read - got {name} - expected a file, or one of .*"
        r"runs/demo.gin"
    ):  # fmt: skip
        load(files=[name])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("include 'runs/finetun.gin'\n", r"gin file cannot be read - got runs/finetun.gin"),
        ("LEARNING_RATE = = 3\n", r"gin settings cannot be read - got .*bad.gin, line 1"),
        ("\nDataConfig.mixtur = 'a'\n", r"got DataConfig.mixtur at .*bad.gin line 2: .* - expected "
         r"mixture"),
    ],
)  # fmt: skip
def test_mistakes_in_files_are_located(tmp_path, text, message):
    (tmp_path / "bad.gin").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(files=[*DEMO, str(tmp_path / "bad.gin")])
