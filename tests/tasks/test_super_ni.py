"""Super-NaturalInstructions: which instances are drawn, and which of them get shots."""

import json

import pytest
from fuzzing import fuzz_files, fuzz_list
from thorough import sample

from tasks import read_conversations
from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError


def write(folder, tasks, listed=None):
    (folder / "tasks").mkdir(exist_ok=True)
    (folder / "splits/xlingual").mkdir(parents=True, exist_ok=True)
    names = listed if listed is not None else list(tasks)
    (folder / "splits/xlingual/train_tasks.txt").write_text("\n".join(names) + "\n")
    for name, task in tasks.items():
        (folder / f"tasks/{name}.json").write_text(json.dumps(task, indent=4))


def task(size, shots=3, outputs=("yes", "no")):
    return {
        "Categories": ["x"],
        "Definition": [" Decide. ", "Not used."],
        "Positive Examples": [
            {"input": f"in {n}", "output": f"out {n}", "explanation": ""} for n in range(shots)
        ],
        "Instances": [
            {"id": f"t-{n}", "input": f"q {n}", "output": list(outputs)} for n in range(size)
        ],
    }


def read(folder, **options):
    return list(read_conversations("super_ni", folder, **options))


def test_a_list_of_tasks_as_windows_saves_it(tmp_path):
    """After a byte order mark the first task was missing."""
    write(tmp_path, {"task1_a": task(2), "task2_b": task(2)})
    before = read(tmp_path)
    names = tmp_path / "splits/xlingual/train_tasks.txt"
    names.write_bytes(b"\xef\xbb\xbf" + names.read_bytes().replace(b"\n", b"\r\n"))
    assert read(tmp_path) == before and before


@pytest.mark.parametrize(
    ("size", "rows", "few"), [(30, 30, 0), (60, 60, 0), (72, 72, 12), (80, 80, 20)]
)
def test_a_small_task_is_kept_whole_in_file_order(tmp_path, size, rows, few):
    write(tmp_path, {"task1_a": task(size)})
    made = read(tmp_path)
    assert [row["id"] for row in made] == [f"super_ni_t-{n}" for n in range(rows)]
    prompts = [row["messages"][0]["content"] for row in made]
    assert sum("Output:\nout" in prompt for prompt in prompts) == few
    assert all("Output:\nout" not in prompt for prompt in prompts[:60])
    assert all(row["messages"][1]["content"] == "yes" for row in made)


def test_a_large_task_is_sampled(tmp_path):
    write(tmp_path, {"task1_a": task(81)})
    made = read(tmp_path)
    ids = [row["id"] for row in made]
    assert len(set(ids)) == 80 and ids != sorted(ids, key=lambda name: int(name[11:]))
    assert ids == [row["id"] for row in read(tmp_path)]


def test_two_shots_sampled_or_all_there_are(tmp_path):
    write(tmp_path, {"task1_a": task(61, shots=1), "task2_b": task(61, shots=5)})
    one, two = (read(tmp_path)[at]["messages"][0]["content"] for at in (60, 121))
    assert one == "Decide.\n\nInput:\nin 0\nOutput:\nout 0\n\nInput:\nq 60\nOutput:\n"
    assert two.count("Output:\nout") == 2


def test_leaked_tasks_are_not_opened(tmp_path):
    write(tmp_path, {"task1_a": task(2)}, listed=["task694_mmmlu_answer", "task1_a", ""])
    assert len(read(tmp_path)) == 2


def test_output_that_is_one_text_gives_its_first_character(tmp_path):
    broken = task(2)
    broken["Instances"][0]["output"] = "POS"
    broken["Instances"][1]["output"] = ""
    write(tmp_path, {"task1_a": broken})
    faults = Faults()
    assert read(tmp_path, faults=faults)[0]["messages"][1]["content"] == "P"
    assert "field 'output' has the wrong type - got str ''" in faults.messages[0]


def test_bad_instances_are_named_by_line(tmp_path):
    broken = task(300)
    broken["Instances"][5]["output"] = []
    broken["Instances"][7] = 3
    write(tmp_path, {"task1_a": broken})
    lines = (tmp_path / "tasks/task1_a.json").read_text().splitlines()
    faults = Faults()
    made = read(tmp_path, faults=faults, zero_shot_per_task=1000)
    assert (len(made), faults.skipped, faults.records) == (298, 2, 300)
    place = 1 + next(n for n, line in enumerate(lines) if line.strip() == "3,")
    assert f"record has the wrong type - got int 3 at {tmp_path}" in faults.messages[0]
    assert f"task1_a.json, line {place}" in faults.messages[0]
    assert "field 'output' is empty" in faults.messages[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Definition": []}, "field 'Definition' is empty"),
        ({"Definition": [3]}, "the first of 'Definition' has the wrong type - got int 3"),
        ({"Positive Examples": None}, "field 'Positive Examples' has the wrong type"),
        ({"Instances": {}}, "field 'Instances' has the wrong type - got dict"),
    ],
)
def test_bad_task_files_are_refused(tmp_path, change, message):
    write(tmp_path, {"task1_a": {**task(3), **change}})
    with pytest.raises(DataError, match=message):
        read(tmp_path, faults=Faults())


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the list of tasks - got .*No such file"):
        read(tmp_path)
    write(tmp_path, {}, listed=["task1_a"])
    with pytest.raises(DataError, match=r"cannot read raw file - got No such file .*task1_a.json"):
        read(tmp_path, faults=Faults())
    write(tmp_path, {}, listed=["task694_mmmlu_answer"])
    with pytest.raises(DataError, match=r"the list of tasks is empty"):
        read(tmp_path)
    (tmp_path / "tasks/task1_a.json").write_text(json.dumps(task(3))[:-1])
    write(tmp_path, {}, listed=["task1_a"])
    with pytest.raises(DataError, match=r"malformed .* got end of file at .*, line 1"):
        read(tmp_path, faults=Faults())


@pytest.mark.parametrize("zero_shot", [0, 10**6])
def test_fuzzed_instances(tmp_path, zero_shot):
    sound = task(3)
    write(tmp_path, {"task1_a": sound})
    before, after = json.dumps({**sound, "Instances": []}).rsplit("]", 1)

    def fuzzed(faults):
        options = {"zero_shot_per_task": zero_shot, "few_shot_per_task": 10**6}
        return read_conversations("super_ni", tmp_path, faults=faults, **options)

    path = tmp_path / "tasks/task1_a.json"
    fuzz_list(
        path, sound["Instances"], fuzzed, count=sample(4_000), before=before, after="]" + after
    )
    assert fuzz_files(path, json.dumps(sound, indent=1), fuzzed, count=300) > 90


def test_instances_nested_in_shots(tmp_path):
    broken = task(61)
    broken["Positive Examples"] = [{"input": "a"}]
    write(tmp_path, {"task1_a": broken})
    faults = Faults()
    assert len(read(tmp_path, faults=faults)) == 60
    assert "missing field 'output'" in faults.messages[0] and faults.skipped == 1
