"""Which devices hold the weights, on the eight that tests pretend to have."""

import jax
import pytest

from tests.generate.test_engine import CONFIG
from tulu_jax.cli.placement import find_placement
from tulu_jax.errors import ConfigError
from tulu_jax.generate.sizes import cache_length, slot_bytes, weight_bytes

OPTIONS = {"slots": 4, "length": 100, "dtype": "float32"}


@pytest.fixture
def accelerators(monkeypatch):
    """The CPUs, taken for accelerators with memory of their own; sets how much is free."""

    class Device:
        platform, device_kind = "tpu", "TPU v5 lite"

    def free(size):
        monkeypatch.setattr("tulu_jax.generate.sizes.free_memory", lambda: size)

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()] * 8)
    monkeypatch.setattr("tulu_jax.cli.placement._scope", lambda config, group: len(group))
    monkeypatch.setattr("tulu_jax.cli.placement._mesh", lambda devices: cpu_mesh(len(devices)))
    return free


def cpu_mesh(count):
    from tulu_jax.parallel import MeshConfig, make_mesh

    return make_mesh(MeshConfig(fsdp=1, tensor=count), jax.devices("cpu")[:count])


def needed(slots):
    """Bytes that weights and so many slots take."""
    slot = slot_bytes(CONFIG, cache_length(100, "cpu"), "float32")
    return int((weight_bytes(CONFIG, "float32") + slots * slot) / 0.9) + 8


def test_on_cpu_there_is_one():
    found = find_placement(CONFIG, **OPTIONS)
    assert found.plain and found.sizes.slots == 4 and found.lines() == []
    assert found.bandwidth is None


def test_replicas_on_cpu_where_they_are_asked_for():
    found = find_placement(CONFIG, **OPTIONS, tensor=2, replicas=3)
    assert not found.plain and len(found.scopes) == 3 and found.devices == [None] * 3
    with found.scopes[1]():
        assert jax.sharding.get_abstract_mesh().shape["tensor"] == 2
    assert found.lines()[0] == "3 replicas, each on 2 devices"
    apart = find_placement(CONFIG, **OPTIONS, replicas=2)
    assert apart.devices == jax.devices()[:2]
    assert apart.lines()[0] == "2 replicas, each on a device"


def test_every_device_has_a_copy_where_there_is_room(accelerators):
    accelerators(needed(4))
    found = find_placement(CONFIG, **OPTIONS)
    assert (len(found.scopes), found.tensor, found.sizes.slots) == (8, 1, 4)
    assert found.bandwidth == 8.19e11
    assert found.lines()[1].startswith("4 slots of 100 tokens: cache")


def test_devices_join_where_weights_need_it(accelerators):
    accelerators(needed(1) // 2 + 100)
    found = find_placement(CONFIG, **OPTIONS)
    assert (len(found.scopes), found.tensor) == (4, 2)
    assert found.bandwidth == 2 * 8.19e11
    assert found.lines()[1].startswith("memory has room for 1 slots of 100 tokens")


def test_no_more_replicas_than_requests(accelerators):
    accelerators(needed(4))
    found = find_placement(CONFIG, **OPTIONS, requests=3)
    assert (len(found.scopes), found.sizes.slots) == (3, 1)
    found = find_placement(CONFIG, **OPTIONS, requests=20)
    assert (len(found.scopes), found.sizes.slots) == (8, 3)


def test_what_cannot_be_is_refused(accelerators):
    accelerators(needed(4))
    with pytest.raises(ConfigError, match="there are not so many devices - got --replicas=5 of"):
        find_placement(CONFIG, **OPTIONS, tensor=2, replicas=5)
    accelerators(100)
    with pytest.raises(ConfigError, match="model and one sequence do not fit into the memory"):
        find_placement(CONFIG, **OPTIONS)
    with pytest.raises(ConfigError, match="mesh axis tensor does not divide the model"):
        find_placement(CONFIG, **OPTIONS, tensor=8)
