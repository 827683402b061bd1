"""An evaluation that ends at any moment goes on with other devices and slots, and does not show it.

That a process may be killed while it writes is tested beside (test_killed.py); here every part is
answered by another engine.
"""

import csv
import io
import json
import random
from contextlib import nullcontext
from functools import partial

import jax
import numpy as np
import pytest
from thorough import sample

from eval.harness.backends import EngineBackend
from eval.harness.cache import AnswerCache
from eval.harness.registry import find_task
from eval.harness.runner import ask_all, fit_all, grade, load_task, rows_of, write_result
from eval.truthfulqa.run_eval import COLUMNS, Options
from tasks.demo import TOKENIZER_DIR
from tests.eval.asking import context, result
from tulu_jax.chat import load_tokenizer
from tulu_jax.generate import Engine
from tulu_jax.models import LlamaConfig, abstract_params
from tulu_jax.parallel import MeshConfig, layout_for, make_mesh

ENDS = sample(30)
QUESTIONS = 5
LENGTH = 128
MESH = MeshConfig(data=2, fsdp=2, tensor=2)
NAMES = ("tulu_demo", "truthfulqa")


class Ended(BaseException):
    """The end of the process, wherever it is."""


class Noting(EngineBackend):
    """An engine that notes what it is asked."""

    def __init__(self, engine, devices):
        super().__init__(engine, "model")
        self.devices, self.asked = devices, []

    def answer(self, asks, on_done):
        self.asked += [ask.key(self.fingerprint) for ask in asks]
        with self.devices():
            super().answer(asks, on_done)


@pytest.fixture(scope="module")
def backends():
    """One model on one device with 2 slots and with 5, and on 8 devices with 3."""
    tokenizer = load_tokenizer(TOKENIZER_DIR)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, d_model=16, d_ff=24, num_layers=2, num_heads=4,
        num_kv_heads=2, head_dim=8, max_length=LENGTH, norm_eps=1e-5, bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) * 0.5).astype(np.float32), abstract_params(config)
    )
    make = partial(Engine, config, tokenizer=tokenizer)
    found = [Noting(make(params, slots=slots), nullcontext) for slots in (2, 5)]
    layout = layout_for(config, make_mesh(MESH))
    with layout.activate():
        sharded = jax.device_put(params, layout.params(config))
        found.append(Noting(make(sharded, slots=3), layout.activate))
    assert len(jax.tree.leaves(sharded)[0].sharding.device_set) == 8
    return found


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, backends):
    """Answers that are generated, and candidates that are weighed."""
    folder = tmp_path_factory.mktemp("data")
    text = io.StringIO()
    rows = [["A", "L", f"Who is {i}?", f"He {i}", f"He {i}; She", f"They; We {i}", ""]
            for i in range(QUESTIONS)]  # fmt: skip
    csv.writer(text).writerows([COLUMNS, *rows])
    (folder / "TruthfulQA.csv").write_text(text.getvalue())
    found = []
    for name in NAMES:
        benchmark, options = find_task(name)
        options = Options(preset="null", metrics=("mc",)) if name == "truthfulqa" else options
        tokenizer = backends[0].engine.tokenizer
        setting = context(benchmark, folder, options, tokenizer=tokenizer, max_length=LENGTH)
        task = load_task(name, benchmark, setting, limit=2 * QUESTIONS)
        task.instances, task.cut = fit_all(task.instances, LENGTH)
        found.append(task)
    return found


def run(tasks, backend, folder, ends_after=None):
    """Runs all tasks; ends after so many new answers, in the middle of writing the next one."""
    left = [ends_after]

    class Ending(AnswerCache):
        def put(self, key, answer, **how):
            if left[0] == 0:
                self._file.write(b'{"key": "' + key[:9].encode())
                raise Ended
            super().put(key, answer, **how)
            left[0] = None if left[0] is None else left[0] - 1

    with Ending(folder / "answers") as cache:
        for task in tasks:
            answers = ask_all(task.name, task.instances, backend, cache)
            graded = grade(task.name, task.benchmark, task.context, rows_of(task, answers))
            write_result(graded, task.benchmark, task.context, folder / task.name)


def keys(folder):
    """The keys of whole lines."""
    path = folder / "answers"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line)["key"] for line in text.split("\n")[:-1]]


def same(ours, theirs):
    """Passes for rows and metrics that are equal, numbers of tokens' probabilities to 1e-6."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            same(ours[name], theirs[name])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    else:
        assert ours == theirs


@pytest.mark.slow
def test_ends_do_not_show(backends, tasks, tmp_path):
    assert len(jax.devices()) == 8
    run(tasks, backends[0], tmp_path / "whole")
    count, whole = len(keys(tmp_path / "whole")), tmp_path / "whole"
    moments, ends, turn, finished = random.Random(0), 0, 0, []
    while ends < ENDS or not finished:
        folder = tmp_path / f"run-{len(finished)}"
        backend, turn = backends[turn % len(backends)], turn + 1
        kept, backend.asked = keys(folder), []
        # Few answers between two ends, so that all engines share in a run.
        moment = moments.randrange(count // 4) if ends < ENDS else None
        try:
            run(tasks, backend, folder, moment)
            finished.append(folder)
        except Ended:
            ends += 1
        now = keys(folder)
        assert not set(kept) & set(backend.asked), "what was kept is asked again"
        assert len(set(backend.asked)) == len(backend.asked), "asked twice in one run"
        assert now[: len(kept)] == kept and len(set(now)) == len(now), "lost, or kept twice"
    for folder in finished:
        assert sorted(keys(folder)) == sorted(keys(whole))
        for name in NAMES:
            metrics, _, rows = result(folder / name)
            expected, _, answered = result(whole / name)
            same(metrics, expected)
            same(rows, answered)
            outputs = [row["output"] for row in rows]
            assert outputs == [row["output"] for row in answered]
            assert len({output for output in outputs if output}) > QUESTIONS // 2
