import jax
import pytest

from tulu_jax.errors import ConfigError
from tulu_jax.generate import sizes
from tulu_jax.generate.sizes import GIB, check_length, fit, free_memory, slot_bytes
from tulu_jax.generate.steps import init_layers
from tulu_jax.models import OptConfig
from tulu_jax.ops.attention.cached import BLOCK

from .test_engine import CONFIG


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_of_a_slot_are_those_of_its_arrays(dtype):
    arrays = jax.eval_shape(lambda: init_layers(CONFIG, 1, 64, dtype))
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
    assert slot_bytes(CONFIG, 64, dtype) == held


def test_as_many_slots_as_fit():
    weights = CONFIG.num_params * 4
    slot = slot_bytes(CONFIG, 2 * BLOCK, "float32")  # 64 tokens, a piece, and one beyond
    options = {"slots": 16, "length": 64, "dtype": "float32"}
    assert fit(CONFIG, **options, free_bytes=None).slots == 16
    assert fit(CONFIG, **options, free_bytes=GIB).slots == 16
    some = fit(CONFIG, **options, free_bytes=int((weights + 3.5 * slot) / 0.9))
    assert some == (weights, slot, 3, 64)
    assert "3 slots of 64 tokens: cache 0.00 GiB beside weights of" in some.line()
    with pytest.raises(ConfigError, match=r"model and one sequence do not fit into the memory"):
        fit(CONFIG, **options, free_bytes=weights)


def test_eight_bits_and_more_devices_leave_room_for_more():
    options = {"slots": 1000, "length": 64, "dtype": "float32", "free_bytes": 3_000_000}
    plain = fit(CONFIG, **options)
    rounded = fit(CONFIG, **options, int8=True)
    matrices = CONFIG.num_layers * CONFIG.num_layer_matmul_params
    assert plain.weights - rounded.weights == 3 * matrices
    assert rounded.slots >= plain.slots
    assert fit(CONFIG, **options, devices=2).slots >= 2 * plain.slots


def test_memory_that_files_are_cached_in_is_free(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:   5 kB\n")
    monkeypatch.setattr(sizes, "MEMINFO", tmp_path / "meminfo")
    assert free_memory() == 5 * 1024
    monkeypatch.setattr(sizes, "MEMINFO", tmp_path / "none")
    assert free_memory() is None


def test_learned_positions_are_no_more_than_there_are():
    config = OptConfig(
        vocab_size=8, d_model=4, d_ff=4, num_layers=1, num_heads=1, max_length=9, word_dim=4
    )
    check_length(config, 9)
    with pytest.raises(ConfigError, match="longer than the model has positions - got 10"):
        check_length(config, 10)
    check_length(CONFIG, 10_000)
