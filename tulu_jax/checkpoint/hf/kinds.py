"""What a folder is that is not the model folder it was taken for."""

from __future__ import annotations

from shlex import quote

from tulu_jax.checkpoint.whole_folder import MARKER
from tulu_jax.errors import CheckpointError
from tulu_jax.files import hub_advice, lost_link
from tulu_jax.places import Place, children, is_address

ADAPTER_CONFIG = "adapter_config.json"
MODEL_FOLDER = "a Hugging Face folder: config.json beside *.safetensors or pytorch_model*.bin"
SOME = 20
"""Most folders inside that are looked into."""


def no_model(folder: Place, *, expected: str = MODEL_FOLDER) -> CheckpointError:
    """The error of a path at which there is no model in Hugging Face format; says what is."""
    what, do = other_kind(folder) or (None, None)
    if what is not None:
        return CheckpointError(f"folder holds {what}, not a whole model", at=folder, do=do)
    if not folder.is_dir():
        found = "a file" if folder.exists() else lost_link(folder)
        return CheckpointError(
            "no such folder",
            got=found,
            at=folder,
            expected=expected,
            do="give the folder, not a file in it" if folder.exists() else hub_advice(folder),
        )
    if lost := links_to_nothing(folder):
        return lost
    return CheckpointError(
        "config.json is missing",
        got=sorted(child.name for child in folder.iterdir())[:5] or "an empty folder",
        at=folder,
        expected=expected,
        do=folder_inside(folder),
    )


def _below(path: Place, folder: Place) -> str:
    return str(path)[len(str(folder)) + 1 :]


def refuse_unfinished(folder: Place) -> None:
    """Refuses a folder in a bucket that an export still writes, or that was killed.

    Raises:
      CheckpointError: it is one.
    """
    if is_address(folder) and (folder / MARKER).is_file():
        raise CheckpointError(
            "export of this folder is not complete",
            got=MARKER,
            at=folder,
            do="wait for it, or give the same tulu export again: it goes on where it was killed",
        )


def links_to_nothing(folder: Place) -> CheckpointError | None:
    """The error of a folder in which links lead to nothing; None where none does.

    Snapshots in the cache of huggingface_hub are links to `../../blobs`: copied alone, or cleared
    away below them, nothing is behind the names.
    """
    links = [(file.name, lost_link(file)) for file in sorted(folder.iterdir())]
    lost = [f"{name} -> {target}" for name, target in links if target is not None]
    if not lost:
        return None
    return CheckpointError(
        "files of the folder are links to nothing",
        got=", ".join(lost[:5]),
        at=folder,
        expected="the files themselves, or links to them",
        do="copy it again with what the links lead to (cp -rL), or download it again",
    )


def other_kind(folder: Place) -> tuple[str, str] | None:
    """What else a folder holds, and what takes it; None for nothing that is known."""
    name = quote(str(folder))
    if (folder / ADAPTER_CONFIG).is_file():
        return "an adapter (PEFT)", (
            f"make it a run beside its base: tulu adapter --peft {name} --base BASE --model_dir "
            "RUN; then export with --merge where one whole model is wanted"
        )
    if (folder / "checkpoints").is_dir():
        return "a run with checkpoints", f"write it out: tulu export --model_dir {name}"
    if (folder / "params.json").is_file():
        return "a model in Meta's layout", f"import it: tulu import --meta {name}"
    gguf = sorted(folder.glob("*.gguf"))
    if gguf:
        return f"a GGUF file ({gguf[0].name})", "give the Hugging Face folder it was made from"
    for pattern, what, do in OF_TRAINERS:
        found = next(iter(sorted(folder.glob(pattern))), None)
        if found is not None:
            return f"{what} ({_below(found, folder)})", do
    return None


_SAVE = "load it in that program and save it with save_pretrained(DIR)"
OF_TRAINERS = (
    ("*/mp_rank_*_model_states.pt", "a checkpoint of DeepSpeed",
     "join it first, with the zero_to_fp32.py that DeepSpeed puts beside it"),
    ("*/*.distcp", "a sharded checkpoint of torch (FSDP)",
     "join it first: accelerate merge-weights, or as the program that wrote it says"),
    ("flax_model*.msgpack", "weights of Flax", _SAVE),
    ("tf_model*.h5", "weights of TensorFlow", _SAVE),
    ("consolidated*.safetensors", "weights under Mistral's own names",
     "take the files model*.safetensors of the same model"),
)  # fmt: skip
"""Files in which other programs keep weights, what they are, and what to do."""


def folder_inside(folder: Place) -> str | None:
    """Which folder inside may be meant."""
    inside = [child for child in children(folder) if child.is_dir()][:SOME]
    inside += sorted(folder.glob("snapshots/*"))[:SOME]  # the cache of huggingface_hub
    names = ("config.json", ADAPTER_CONFIG)
    found = [child for child in inside if any((child / name).is_file() for name in names)]
    return f"give the folder inside: {found[0]}" if len(found) == 1 else None
