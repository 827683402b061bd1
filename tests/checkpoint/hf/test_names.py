import jax
import numpy as np
import pytest

from tulu_jax.checkpoint.arrays import TreeReader
from tulu_jax.checkpoint.hf.names import TABLE, expected_tensors, weights_of
from tulu_jax.models import abstract_params

from .small import CONFIG, TIED


@pytest.mark.parametrize("config", [CONFIG, TIED])
def test_table_covers_the_tree_of_weights(config):
    paths = {row.path for row in weights_of(config)}
    assert paths == set(TreeReader(abstract_params(config)).paths())
    size = sum(int(np.prod(shape)) for shape in expected_tensors(config).values())
    assert size == sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config)))
    assert size == config.num_params


def test_worked_example_of_the_docstring():
    query = next(row for row in TABLE if row.path[-1] == "query")
    tensor = np.array([["a", "b"], ["c", "d"], ["e", "f"]])
    ours = query.from_hf(tensor, (2, 1, 3))
    assert ours[:, 0, :].tolist() == [["a", "c", "e"], ["b", "d", "f"]]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: "/".join(row.path))
def test_there_and_back_is_the_identity(row):
    shape = row.hf_shape(CONFIG)
    tensor = np.arange(np.prod(shape)).reshape(shape)
    leaf = abstract_params(CONFIG)
    for key in row.path:
        leaf = leaf[key]
    ours_shape = leaf.shape[1:] if row.per_layer else leaf.shape
    ours = row.from_hf(tensor, ours_shape)
    assert ours.shape == ours_shape
    assert np.array_equal(row.to_hf(np.ascontiguousarray(ours), CONFIG), tensor)
