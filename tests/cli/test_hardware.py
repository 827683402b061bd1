"""The presets of hardware: each loads after any run file, resets all it speaks of, and fits."""

import re

import pytest

from tulu_jax.cli.gin_config import MACROS, load_train_config
from tulu_jax.cli.gin_files import config_folder

FOLDER = config_folder() / "hardware"
PRESETS = sorted(path.stem for path in FOLDER.glob("*.gin"))
SET = {"MESH_SLICE", "MESH_DATA", "MESH_FSDP", "MESH_SEQUENCE", "MESH_TENSOR", "AXIS_RULES",
       "DTYPE", "REMAT", "UNROLL_LAYERS"}  # fmt: skip
CHIPS = {
    "cpu": 1, "h100_1": 1, "h100_8": 8, "h100_64": 64, "v4_8": 4, "v4_32": 16, "v4_256": 128,
    "v5e_16": 16, "v5e_256": 256, "v5p_8": 4, "v5p_128": 64, "v6e_16": 16,
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    """Names say chips (v5e, v6e) or cores, two a chip (v4, v5p), as when they are ordered."""
    text = (FOLDER / f"{name}.gin").read_text()
    assert set(re.findall(r"^(\w+) = ", text, re.MULTILINE)) == SET <= set(MACROS)
    model = re.search(r"--gin_file=models/(\w+)\.gin --gin_file=hardware/(\w+)\.gin", text)
    assert model[2] == name
    files = ["runs/finetune.gin", f"models/{model[1]}.gin", f"hardware/{name}.gin"]
    fill = ["MODEL_DIR='x'", "MIXTURE_OR_TASK_NAME='tulu_demo'", "TOKENIZER='x'", "EPOCHS=1"]
    config = load_train_config(files, fill)
    sizes = config.mesh.resolve(CHIPS[name])
    slices, data, fsdp, sequence, tensor = sizes
    assert config.data.batch_size % (slices * data * fsdp) == 0
    assert config.model.d_model % (fsdp * sequence) == 0
    assert config.model.num_heads % tensor == config.model.d_ff % tensor == 0


def test_a_preset_comes_after_a_run_file():
    files = ["runs/paper/tulu_65b.gin", "hardware/v5p_128.gin"]
    mesh = load_train_config(files, ["MODEL_DIR='x'", "INITIAL_CHECKPOINT_PATH='y'"]).mesh
    assert mesh.resolve(64) == (1, 1, 64, 1, 1)
