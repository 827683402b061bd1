"""The table of a study: which steps a cell has, and what their folders' names depend on."""

import dataclasses

import pytest

from eval.study.cells import KINDS, Recipe
from eval.study.compiled import compile_study
from eval.study.study import Grid
from tests.eval.study.small_studies import (
    ALPACA,
    DOLLY,
    base,
    changed,
    evaluation,
    recipe,
    study,
    table,
)
from tulu_jax.data.mixtures import get_mixture
from tulu_jax.errors import ConfigError


def keys(table, *, kinds=KINDS):
    return {(s.kind, s.name): s.key for s in table.steps if s.kind in kinds}


def cell(table, name):
    (found,) = (one for one in table.cells if one.name == name)
    return found


def test_a_cell_is_made_step_by_step(tmp_path):
    found = cell(table(tmp_path), "small+dolly")
    prepare, train, export, evaluate, report = found.steps
    kinds = tuple(k for k in KINDS if k not in ("losses", "annotate"))
    assert tuple(step.kind for step in found.steps) == kinds
    assert [step.parents for step in found.steps] == [
        (), (prepare,), (train,), (export,), (evaluate,),
    ]  # fmt: skip
    assert prepare.argv[:3] == ("data", "prepare", DOLLY)
    assert f"--gin.MODEL_DIR='{train.folder}/run'" in train.argv
    assert f"--gin.MIXTURE_OR_TASK_NAME='{DOLLY}'" in train.argv
    assert f"--gin.INITIAL_CHECKPOINT_PATH='{tmp_path}/models/small'" in train.argv
    assert export.argv[1:5] == (
        "--model_dir", f"{train.folder}/run", "--output", f"{export.folder}/small+dolly",
    )  # fmt: skip
    assert evaluate.argv[:5] == (
        "eval", "mmlu_0shot", "gsm_cot", "--model", f"{export.folder}/small+dolly",
    )  # fmt: skip
    assert report.argv[:2] == ("report", f"{evaluate.folder}/results")


def test_a_base_model_is_only_evaluated(tmp_path):
    found = cell(table(tmp_path), "small")
    evaluate, report = found.steps
    assert evaluate.argv[3:5] == ("--model", f"{tmp_path}/models/small")
    assert (evaluate.parents, report.parents) == ((), (evaluate,))


def test_a_mixture_needs_each_of_its_tasks_once(tmp_path):
    found = table(tmp_path, datasets=("tulu_v1_human", DOLLY))
    both = cell(found, "small+v1_human"), cell(found, "small+dolly")
    tasks = get_mixture("tulu_v1_human").tasks
    assert [step.name for step in both[0].of("prepare")] == list(tasks)
    assert len(tasks) > 1 and DOLLY in tasks
    assert both[1].of("prepare")[0] in both[0].of("prepare")
    every = [step for step in found.steps if step.kind == "prepare"]
    assert len(every) == 2 * len(tasks)  # two tokenizers


def test_parents_come_first_and_every_folder_is_one_step(tmp_path):
    found = table(tmp_path)
    seen = set()
    for step in found.steps:
        assert seen.issuperset(step.parent_keys)
        seen.add(step.key)
    assert len(seen) == len({step.folder for step in found.steps}) == len(found.steps) == 24


def test_a_changed_recipe_changes_what_depends_on_it_and_nothing_else(tmp_path):
    before, after = table(tmp_path), compile_study(
        changed(study(tmp_path), settings={"LEARNING_RATE": 1e-3}), recipe
    )  # fmt: skip
    old, new = keys(before), keys(after)
    assert old.keys() == new.keys()
    different = {name for name in old if old[name] != new[name]}
    assert different == {
        (kind, name) for kind, name in old
        if name.startswith("small+") and kind != "prepare"
    }  # fmt: skip


@pytest.mark.parametrize("field", ["folder", "models_dir", "raw_dir", "eval_data_dir"])
def test_folders_may_move(tmp_path, field):
    before = study(tmp_path)
    after = dataclasses.replace(before, **{field: str(tmp_path / "elsewhere")})
    assert keys(compile_study(before, recipe)) == keys(compile_study(after, recipe))


def test_what_evaluations_depend_on(tmp_path):
    def of(**fields):
        grid = study(tmp_path).grids[0]
        grid = dataclasses.replace(grid, evaluations=(evaluation(**fields),))
        return keys(table(tmp_path, grids=(grid,)))

    before = of()
    for fields in ({"limit": 3}, {"compat": "paper"}, {"options": ("gsm.full=true",)},
                   {"tasks": ("gsm_cot",)}, {"dtype": "bfloat16"}):  # fmt: skip
        after = of(**fields)
        different = {kind for (kind, name) in before if before[kind, name] != after[kind, name]}
        assert different == {"evaluate", "report"}, fields
    assert of(judge_dollars=3.0) == of(allow_code=True) == before


def test_reading_options_reach_preparation_and_training(tmp_path):
    options = {"tulu_dolly": {"rule": "x"}}
    plain, found = table(tmp_path), table(tmp_path, options=options)
    argv = cell(found, "small+dolly").of("prepare")[0].argv
    assert argv[-2:] == ("--option", "tulu_dolly.rule=x")
    train = cell(found, "small+dolly").of("train")[0].argv
    assert train[-1] == f"--gin.DataConfig.options={options!r}"
    old, new = keys(plain), keys(found)
    assert old["train", "small+dolly"] != new["train", "small+dolly"]
    assert old["train", "small+stanford_alpaca"] == new["train", "small+stanford_alpaca"]


def test_settings_are_written_as_gin_takes_them(tmp_path):
    settings = {"LORA": "@LoraConfig()", "DTYPE": "float32", "LORA_TARGETS": ["q_proj"]}
    argv = cell(table(tmp_path, models=(base(settings=settings),)), "small+dolly").of("train")[0]
    assert "--gin.LORA=@LoraConfig()" in argv.argv
    assert "--gin.DTYPE='float32'" in argv.argv
    assert "--gin.LORA_TARGETS=['q_proj']" in argv.argv


def test_a_model_behind_an_endpoint_is_asked_there(tmp_path):
    models = (base("gpt", checkpoint=None, gin_files=(), engine="gpt-4-0314"),)
    (found,) = table(tmp_path, models=models, datasets=("none",)).cells
    assert found.of("evaluate")[0].argv[3:5] == ("--engine", "gpt-4-0314")


def test_two_grids_share_a_cell_but_train_it_in_one_way(tmp_path):
    first = study(tmp_path).grids[0]
    more = dataclasses.replace(first, evaluations=(evaluation("more", tasks=("bbh_cot",)),))
    found = table(tmp_path, grids=(first, more))
    assert [step.name for step in cell(found, "small+dolly").of("evaluate")] == [
        "small+dolly: knowledge", "small+dolly: more",
    ]  # fmt: skip
    slower = base("small", settings={"MICRO_BATCHES": 2})
    other = Grid(models=(slower,), datasets=(ALPACA,), evaluations=())
    with pytest.raises(ConfigError, match=r"trained in two ways - got small on tulu_stanford_alp"):
        table(tmp_path, grids=(first, other))


def test_tokens_that_are_added_are_prepared_with(tmp_path):
    found = compile_study(
        study(tmp_path), lambda model: Recipe("x", 512, "hf", "chatml", ("<a>", "<b>"))
    )
    argv = " ".join(cell(found, "small+dolly").of("prepare")[0].argv)
    assert "--chat_template chatml" in argv
    assert "--add_tokens <a> --add_tokens <b>" in argv


def test_losses_are_measured_where_examples_are_held_out(tmp_path):
    grid = study(tmp_path, datasets=("none", DOLLY, f"{ALPACA},{DOLLY}")).grids[0]
    plain = study(tmp_path, grids=(grid,))
    found = compile_study(plain, lambda model: Recipe("x", 512, "hf", heldout=5, seed=3))
    for name in ("small", "small+dolly", "small+stanford_alpaca_dolly"):
        (step,) = cell(found, name).of("losses")
        assert step.argv[:4] == ("study", "losses", DOLLY, ALPACA)
        text = " ".join(step.argv)
        assert "--heldout 5 --seed 3 --tokenizer" in text
        assert text.endswith(f"--output losses/{step.key}/losses.json")
        prepared = {parent.name for parent in step.parents if parent.kind == "prepare"}
        assert prepared == {ALPACA, DOLLY}
        tuned = [parent for parent in step.parents if parent.kind == "export"]
        model = f"export/{tuned[0].key}/{name}" if tuned else f"{tmp_path}/models/small"
        assert f"--model {model} " in text
    assert not [s for s in compile_study(plain, recipe).steps if s.kind == "losses"]
    random = base(checkpoint=None, tokenizer="t")
    later = dataclasses.replace(grid, models=(random,), datasets=(DOLLY,))
    found = compile_study(
        study(tmp_path, grids=(later,)), lambda _: Recipe("x", 9, "hf", heldout=5)
    )
    assert [len(one.of("losses")) for one in found.cells] == [1]


def test_a_mixture_may_have_a_name(tmp_path):
    mix = f"{DOLLY},{ALPACA}"
    found = table(tmp_path, datasets=(mix,), names={mix: "mix"})
    assert [one.name for one in found.cells] == ["small+mix", "large+mix"]
    assert cell(found, "small+mix").of("export")[0].argv[4].endswith("/small+mix")


def test_the_longest_prompt_is_handed_on(tmp_path):
    grid = study(tmp_path).grids[0]
    grid = dataclasses.replace(grid, evaluations=(evaluation(max_length=64),))
    found = table(tmp_path, grids=(grid,))
    for step in (step for step in found.steps if step.kind == "evaluate"):
        assert "--max_length 64" in " ".join(step.argv)


def own_file(folder, name="chats 'x', (1).jsonl"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    return path


def test_a_file_of_ones_own_is_found_from_the_studys_folder(tmp_path, monkeypatch):
    path = own_file(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    name = f"own/{path.name}"
    options = {name: {"columns": "a"}}
    found = table(tmp_path, datasets=(f"{name},dolly",), options=options, models=(base(),))
    (one,) = found.cells
    assert one.name == f"small+{path.name}_dolly"
    assert {step.argv[2] for step in one.of("prepare")} == {str(path), DOLLY}
    assert f"{path}.columns=a" in [word for step in one.steps for word in step.argv]
    argv = one.of("train")[0].argv
    assert any(word.startswith("--gin.MIXTURE_OR_TASK_NAME=") and repr(str(path))[1:-1] in word
               for word in argv)  # fmt: skip


def test_two_cells_of_one_name_are_refused_until_one_is_renamed(tmp_path):
    paths = [str(own_file(tmp_path / folder, "chats.jsonl")) for folder in "ab"]
    with pytest.raises(ConfigError, match=r"two cells have one name - got small.chats.jsonl at "):
        table(tmp_path, datasets=paths, models=(base(),))
    found = table(tmp_path, datasets=paths, models=(base(),), names={paths[1]: "other"})
    assert [one.name for one in found.cells] == ["small+chats.jsonl", "small+other"]


def test_a_long_name_is_one_that_a_folder_can_have(tmp_path):
    paths = [str(own_file(tmp_path / "a", f"{'é' * 30}{i}.jsonl")) for i in range(9)]
    (one,) = table(tmp_path, datasets=(",".join(paths),), models=(base(),)).cells
    assert len(one.name.encode()) < 200 and one.name.startswith("small+éé")
