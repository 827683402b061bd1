"""Which files of a folder hold the tensors of a model.

Safetensors are taken where there are any, else the files of torch: one file, or shards that an
index names. An index comes from strangers: it may name plain files of its own folder only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from tulu_jax.checkpoint.hf.kinds import links_to_nothing, other_kind
from tulu_jax.checkpoint.hf.safetensors_io import INDEX_NAME, SINGLE_NAME, read_header
from tulu_jax.checkpoint.hf.tensors import TensorSpec
from tulu_jax.checkpoint.hf.torch_file import read_torch_file
from tulu_jax.errors import CheckpointError
from tulu_jax.files import read_json, real_path
from tulu_jax.places import Address, Place


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to keep weights in files."""

    single: str
    index: str
    suffix: str
    read: Callable[[Place], dict[str, TensorSpec]]


FORMATS = (
    Format(SINGLE_NAME, INDEX_NAME, ".safetensors", read_header),
    Format("pytorch_model.bin", "pytorch_model.bin.index.json", ".bin", read_torch_file),
)
"""In order of preference."""


def find_tensors(folder: Place) -> dict[str, TensorSpec]:
    """All tensors of a Hugging Face folder: one file, or shards named by an index.

    Raises:
      CheckpointError: no weights, two sets of one format, or an index that does not fit its shards.
    """
    for kind in FORMATS:
        single, index = folder / kind.single, folder / kind.index
        if single.is_file() and index.is_file():
            raise CheckpointError(
                "folder holds two sets of weights",
                got=f"{kind.single} and {kind.index}",
                at=folder,
                do="remove the one that does not belong to config.json",
            )
        if single.is_file():
            return _some(kind.read(single), single)
        if index.is_file():
            return _some(_find_in_shards(folder, kind, _read_index(index, kind)), index)
    suffixes = ("safetensors", "bin", "pth", "pt", "h5", "msgpack", "gguf")
    others = sorted(path.name for end in suffixes for path in folder.glob(f"*.{end}"))
    if lost := links_to_nothing(folder):
        raise lost
    what, do = other_kind(folder) or (None, None)
    raise CheckpointError(
        "folder holds no weights" + (f" of a model, but {what}" if what else ""),
        got=others[:5] or None,
        at=folder,
        expected=" or ".join(name for kind in FORMATS for name in (kind.single, kind.index)),
        do=do or _what_is_lacking(others),
    )


def _what_is_lacking(others: list[str]) -> str:
    parts = next((name for name in others if "-of-" in name), None)
    if parts is None:
        return "copy or download the weights beside config.json"
    kind = next((kind for kind in FORMATS if parts.endswith(kind.suffix)), FORMATS[0])
    return f"copy or download the index of these parts too: {kind.index}"


def _some(specs: dict[str, TensorSpec], where: Place) -> dict[str, TensorSpec]:
    if not specs:
        raise CheckpointError("weights file holds no tensors", at=where, do="save the model anew")
    return specs


def _read_index(path: Place, kind: Format) -> dict[str, str]:
    weight_map = read_json(path, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            "index is malformed",
            at=path,
            expected="weight_map: {tensor name: file name}",
            do="take it anew from where the shards came",
        )
    for file in weight_map.values():
        plain = isinstance(file, str) and file.endswith(kind.suffix) and "\0" not in file
        if not plain or Path(file).name != file or "\\" in file or _leads_out(path.parent / file):
            raise CheckpointError(
                "index names a file outside its folder",
                got=repr(file),
                at=path,
                expected=f"plain names of *{kind.suffix} files",
                do="do not use this checkpoint unless you know where it comes from",
            )
    return weight_map


def misplaced(folder: Place, tensors: Mapping[str, TensorSpec]) -> list[str]:
    """What to say of tensors that lie in other shards than the index names: they are found there.

    So it is where shards have each other's names, or the index is of another way to cut the model.
    """
    index = next((i for k in FORMATS if (i := folder / k.index).is_file()), None)
    if index is None or len({spec.file for spec in tensors.values()}) < 2:
        return []
    weight_map = read_json(index, CheckpointError)["weight_map"]
    named = {name: weight_map.get(name, spec.file.name) for name, spec in tensors.items()}
    wrong = sorted(name for name, file in named.items() if file != tensors[name].file.name)
    if not wrong:
        return []
    first = f"{wrong[0]} lies in {tensors[wrong[0]].file.name}, not in {named[wrong[0]]}"
    return [f"{len(wrong)} tensors are in other shards than {index.name} names: {first}"]


def _leads_out(path: Place) -> bool:
    """Whether a link points out of the folder; one into the cache of huggingface_hub does not.

    There snapshots/REVISION/FILE is a link to ../../blobs/SHA256.
    """
    if isinstance(path, Address) or not path.is_symlink():
        return False
    target, folder = real_path(path), real_path(path.parent)
    return target.parent not in (folder, folder.parent.parent / "blobs")


def _find_in_shards(
    folder: Place, kind: Format, weight_map: Mapping[str, str]
) -> dict[str, TensorSpec]:
    specs: dict[str, TensorSpec] = {}
    for file in sorted(set(weight_map.values())):
        if not (folder / file).is_file():
            raise links_to_nothing(folder) or CheckpointError(
                "a shard is missing",
                got=f"no {file}",
                at=folder,
                expected=f"the {len(set(weight_map.values()))} shards that {kind.index} names",
                do="copy or download it",
            )
        for name, spec in kind.read(folder / file).items():
            if name in specs:
                files = f"{specs[name].file.name} and {file}"
                raise CheckpointError(
                    "tensor is there twice",
                    got=f"{name} in {files}",
                    at=folder,
                    do="remove the file that is not of this model",
                )
            specs[name] = spec
    lost = sorted(set(weight_map) - set(specs))
    if lost:
        raise CheckpointError(
            "tensors are missing",
            got=f"{lost[:5]} in no shard",
            at=folder / kind.index,
            do="take index and shards from one and the same place",
        )
    return specs
