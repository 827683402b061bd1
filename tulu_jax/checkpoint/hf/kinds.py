"""What a folder is that is not the model folder it was taken for."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from tulu_jax.errors import CheckpointError

ADAPTER_CONFIG = "adapter_config.json"
MODEL_FOLDER = "a Hugging Face folder: config.json beside *.safetensors or pytorch_model*.bin"
SOME = 20
"""Most folders inside that are looked into."""


def no_model(folder: Path, *, expected: str = MODEL_FOLDER) -> CheckpointError:
    """The error of a path at which there is no model in Hugging Face format; says what is."""
    what, do = other_kind(folder) or (None, None)
    if what is not None:
        return CheckpointError(f"folder holds {what}, not a whole model", at=folder, do=do)
    if not folder.is_dir():
        found = "a file" if folder.exists() else None
        return CheckpointError(
            "no such folder",
            got=found,
            at=folder,
            expected=expected,
            do="give the folder, not a file in it" if found else None,
        )
    return CheckpointError(
        "config.json is missing",
        got=sorted(child.name for child in folder.iterdir())[:5] or "an empty folder",
        at=folder,
        expected=expected,
        do=_inside(folder),
    )


def other_kind(folder: Path) -> tuple[str, str] | None:
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
    return None


def _inside(folder: Path) -> str | None:
    """Which folder inside may be meant."""
    inside = sorted(child for child in folder.iterdir() if child.is_dir())[:SOME]
    names = ("config.json", ADAPTER_CONFIG)
    found = [child for child in inside if any((child / name).is_file() for name in names)]
    return f"give the folder inside: {found[0]}" if len(found) == 1 else None
