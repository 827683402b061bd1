"""Plain SeqIO programs: mixtures, rates, and a converter that trains what our own loss trains."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import demo
from tulu_jax.chat import encode, load_tokenizer
from tulu_jax.data import specs
from tulu_jax.data.mixtures import Component, MixtureSpec, all_mixtures
from tulu_jax.data.specs import DatasetSpec
from tulu_jax.train.loss import targets_and_mask

pytestmark = [
    pytest.mark.slow,  # importing TensorFlow alone takes seconds
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning"),
]
TEXT = dict.fromkeys(("description", "citation", "licence", "homepage"), "")
SIZES = {"glue_one": 60, "glue_two": 20}
MIXTURE = "tulu_glue"
LENGTHS = {"targets": 160}


def turns(name, number):
    """One or two turns, so that loss comes and goes within a conversation."""
    for turn in range(1 + number % 2):
        yield {"role": "user", "content": f"What is {name} {number} of turn {turn}?"}
        yield {"role": "assistant", "content": f"It is {number + turn}."}


def conversations(name):
    return [
        {"dataset": name, "id": f"{name}_{i}", "messages": list(turns(name, i))}
        for i in range(SIZES[name])
    ]


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """The glue, configured, with a mixture of two small datasets that exists during this module."""
    import seqio

    from tulu_jax.data import seqio_glue

    known = dict(specs.all_specs())
    for name in SIZES:

        def read(raw_dir, *, name=name, **_):
            return iter(conversations(name))

        spec = DatasetSpec(name=name, version="1.0.0", read=read, **TEXT)
        seqio_glue.register_task(specs.register(spec))
    parts = (Component(task="tulu_glue_one"), Component(task="tulu_glue_two"))
    seqio_glue.register_mixture(MixtureSpec(name=MIXTURE, components=parts))
    folder = tmp_path_factory.mktemp("glue")
    seqio_glue.tests_folder = folder
    yield seqio_glue
    seqio_glue.tasks._settings = None
    seqio.MixtureRegistry.remove(MIXTURE)
    for name in SIZES:
        seqio.TaskRegistry.remove(f"tulu_{name}")
    specs._SPECS.clear()
    specs._SPECS.update(known)


@pytest.fixture
def configured(glue):
    def configure(**settings):
        glue.configure(tokenizer=demo.TOKENIZER_DIR, data_dir=glue.tests_folder, **settings)
        return glue

    return configure


def every_example():
    tokenizer = load_tokenizer(demo.TOKENIZER_DIR)
    return {
        tuple(encode(row["messages"], tokenizer, max_length=160).tokens.tolist()): name
        for name in SIZES
        for row in conversations(name)
    }


def test_every_mixture_is_a_seqio_mixture(glue):
    import seqio

    for name, mixture in all_mixtures().items():
        found = seqio.get_mixture_or_task(name)
        assert {task.name for task in found.tasks} == set(mixture.tasks)
    assert {"tulu_v1_human", "tulu_v1_human_gpt", "tulu_v2"} <= set(seqio.MixtureRegistry.names())


def test_one_epoch_of_a_mixture_has_every_example_once(configured):
    import seqio

    configured()
    mixture = seqio.get_mixture_or_task(MIXTURE)
    dataset = mixture.get_dataset(sequence_length=LENGTHS, split="train", num_epochs=1, seed=1)
    found = [tuple(row["targets"].tolist()) for row in dataset.as_numpy_iterator()]
    assert sorted(found) == sorted(every_example())


@pytest.mark.parametrize(
    ("settings_", "rates"),
    [
        ({}, [60.0, 20.0]),
        ({"rate_maximum": 20}, [20.0, 20.0]),
        ({"rate_temperature": 2.0, "rate_scale": 5.0}, [300**0.5, 10.0]),
        ({"rates": {"tulu_glue_one": 5}}, [5.0, 20.0]),
    ],
)
def test_rates_of_a_mixture(configured, settings_, rates):
    import seqio

    configured(**settings_)
    mixture = seqio.get_mixture_or_task(MIXTURE)
    assert [mixture.get_rate(task) for task in mixture.tasks] == pytest.approx(rates)
    owner = every_example()
    dataset = mixture.get_dataset(sequence_length=LENGTHS, split="train", seed=1)
    found = collections.Counter(
        owner[tuple(row["targets"].tolist())] for row in dataset.take(400).as_numpy_iterator()
    )
    assert found["glue_one"] / 400 == pytest.approx(rates[0] / sum(rates), abs=0.08)


def test_rate_of_the_papers_mixture_is_by_upstream_size_before_configuring(glue, monkeypatch):
    import seqio

    monkeypatch.setattr(glue.tasks, "_settings", None)
    task = seqio.TaskRegistry.get("tulu_dolly")
    assert task.num_input_examples("train") == 15_011


def check_rows(rows, examples, length):
    """The converter's rows hold these examples in order, and train what our loss would train."""
    batch = {
        "tokens": np.stack([row["decoder_input_tokens"] for row in rows]),
        "segment_ids": np.stack([row["decoder_segment_ids"] for row in rows]),
    }
    mask, positions = np.zeros((2, len(rows), length), np.int32)
    left = iter(examples)
    for row, segments in enumerate(batch["segment_ids"]):
        for number in range(1, segments.max() + 1):
            (place,) = np.nonzero(segments == number)
            tokens, loss_mask = next(left)
            assert np.array_equal(batch["tokens"][row, place], tokens)
            mask[row, place], positions[row, place] = loss_mask, np.arange(len(tokens))
    assert next(left, None) is None
    ours = {**batch, "loss_mask": mask}
    fill = -len(rows) % 16  # few shapes: JAX compiles each anew
    padded = {name: np.pad(value, ((0, fill), (0, 0))) for name, value in ours.items()}
    targets, weights = (np.asarray(x)[: len(rows)] for x in targets_and_mask(padded))
    got = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    assert np.array_equal(got["decoder_loss_weights"], weights)
    trained = weights > 0
    assert np.array_equal(got["decoder_target_tokens"][trained], targets[trained])
    assert np.array_equal(got["decoder_positions"], positions)
    within = np.diff(batch["segment_ids"], axis=1, append=0) == 0
    inside = within & (batch["segment_ids"] > 0)
    assert np.array_equal(got["decoder_target_tokens"][inside], targets[inside])
    assert not got["decoder_target_tokens"][~inside].any()
    assert all(value.dtype == np.int32 and value.shape[1] == length for value in got.values())


EXAMPLES = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def convert(glue):
    """Function from examples to the converter's rows; TensorFlow traces each converter once."""
    import tensorflow as tf

    waiting = []
    dataset = tf.data.Dataset.from_generator(
        lambda: ({"targets": tokens, "loss_mask": mask} for tokens, mask in waiting),
        output_signature=dict.fromkeys(("targets", "loss_mask"), tf.TensorSpec([None], tf.int32)),
    )
    converted = {
        pack: glue.TuluFeatureConverter(pack=pack)(dataset, {"targets": 16})
        for pack in (True, False)
    }

    def run(examples, *, pack):
        waiting[:] = examples
        return list(converted[pack].as_numpy_iterator())

    return run


@pytest.mark.parametrize("pack", [True, False])
@settings(max_examples=20, deadline=None)
@given(pairs=EXAMPLES)
def test_rows_train_what_our_loss_trains(convert, pack, pairs):
    """With token 0, empty masks and full masks among them."""
    examples = [tuple(np.array(column, np.int32) for column in zip(*p, strict=True)) for p in pairs]
    rows = convert(examples, pack=pack)
    check_rows(rows, examples, 16)
    assert pack or len(rows) == len(examples)


def test_worked_example_of_the_docstring(glue, convert):
    (row,) = convert([([1, 7, 8, 2], [0, 0, 1, 1]), ([1, 5, 9, 2], [0, 0, 1, 1])], pack=True)
    shown = {
        name: "".join(f"{value or '.'} " for value in values[:9]).strip()
        for name, values in row.items()
    }
    lines = (glue.TuluFeatureConverter.__doc__ or "").splitlines()
    for name in glue.TuluFeatureConverter.MODEL_FEATURES:
        (line,) = (line for line in lines if line.split()[:1] == [name])
        expected = line.split()[1:]
        for old, new in (("0", "."), ("x", "1")):
            expected = [new if value == old else value for value in expected]
        assert shown[name].split() == expected, name


@pytest.mark.parametrize("pack", [True, False])
def test_a_seqio_program_gets_model_features(configured, pack):
    import seqio

    glue = configured()
    dataset = seqio.get_dataset(
        MIXTURE,
        task_feature_lengths=LENGTHS,
        feature_converter=glue.TuluFeatureConverter(pack=pack),
        shuffle=False,
        num_epochs=1,
    )
    rows = list(dataset.as_numpy_iterator())
    assert set(rows[0]) == set(seqio.LMFeatureConverter.MODEL_FEATURES) | set(
        seqio.LMFeatureConverter.PACKING_FEATURE_DTYPES
    )
    tokenizer = load_tokenizer(demo.TOKENIZER_DIR)
    encoded = {}
    for name in SIZES:
        for conversation in conversations(name):
            one = encode(conversation["messages"], tokenizer, max_length=160)
            encoded[tuple(one.tokens.tolist())] = one
    order = []
    for row in rows:
        segments = row["decoder_segment_ids"]
        for number in range(1, segments.max() + 1):
            one = encoded[tuple(row["decoder_input_tokens"][segments == number].tolist())]
            order.append((one.tokens, one.loss_mask))
    assert len(order) == 80 and (len(rows) < 80) == pack
    check_rows(rows, order, 160)
