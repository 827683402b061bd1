"""Who says whether a text is toxic: a RoBERTa in a local folder, or a file of verdicts."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.harness.data import OWN, read_jsonl
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.files import hub_advice, read_json, sha256

MAX_TOKENS = 512
"""What RoBERTa reads; the rest of a text is cut off."""
WANTED = "a folder with a RoBERTa classifier of two labels, 1 for toxic, as tomh/toxigen_roberta"


def text_key(text: str) -> str:
    """The SHA-256 (hex) of a text's UTF-8, by which a file of verdicts may name it."""
    return sha256(text.encode("utf-8", "surrogatepass"))


def read_verdicts(path: Path) -> dict[str, int]:
    """The verdicts of a file by `text_key`: 1 for toxic, 0 for not.

    A line has `text`, or `text_sha256`, and `is_toxic`.

    Raises:
      DataError: a damaged file, a line that says neither, or a text with two verdicts.
    """
    found: dict[str, int] = {}
    for number, row in enumerate(read_jsonl(path, "is_toxic", origin=OWN), 1):
        at, verdict = f"{path} row {number}", row["is_toxic"]
        text, key = row.get("text"), row.get("text_sha256")
        if isinstance(text, str):
            key = text_key(text)
        if not isinstance(key, str) or verdict not in (0, 1) or isinstance(verdict, float):
            raise DataError(
                "line is no verdict", got=str(row)[:80], at=at,
                expected="text or text_sha256, and is_toxic: 0, 1, false or true",
            )  # fmt: skip
        if found.setdefault(key.lower(), int(verdict)) != int(verdict):
            raise DataError("text has two verdicts", got=key, at=at)
    return found


def check_folder(folder: Path, device: str) -> None:
    """Passes for a folder that `Roberta` will be able to load, as far as is seen without weights.

    Raises:
      ConfigError: it is none, or torch, transformers or the device are not there.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            "classifier is not there", got=folder, at="--classifier", expected=WANTED,
            do=hub_advice(folder) or "give its folder, --classifier_file, or --classifier none",
        )  # fmt: skip
    config: Mapping[str, Any] = read_json(folder / "config.json", ConfigError)
    labels = len(config.get("id2label") or (0, 1))
    if config.get("model_type") != "roberta" or labels != 2:
        raise ConfigError(
            "classifier is another model", got=f"{config.get('model_type')} of {labels} labels",
            at=folder, expected=WANTED,
        )  # fmt: skip
    lacking = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if lacking:
        raise ConfigError(
            "classifier needs packages that are not installed", got=f"no {', '.join(lacking)}",
            do=f"pip install {' '.join(lacking)}, or classify elsewhere and give --classifier_file",
        )  # fmt: skip
    _device(device)


def _device(name: str) -> Any:
    """The torch device of this name; `auto` is a GPU where there is one.

    Raises:
      ConfigError: there is none.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            "torch has no such device", got=repr(name), at="--classifier_device",
            expected="auto, cpu, cuda or cuda:N", do=str(error).split("\n")[0],
        ) from error  # fmt: skip
    return device


class Roberta:
    """A RoBERTa classifier of two labels, as transformers runs it."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        """Loads it; `check_folder` has passed.

        Raises:
          ConfigError: transformers cannot load the folder, or there is no such device.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._device = _device(device)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            model = AutoModelForSequenceClassification.from_pretrained(
                str(folder), local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ConfigError(
                "transformers cannot load the classifier", got=str(error)[:500], at=folder
            ) from error
        self._model: Any = model.float().eval().to(self._device)
        positions = self._model.config.max_position_embeddings - self._model.config.pad_token_id - 1
        self._longest = min(MAX_TOKENS, positions)

    def __call__(self, texts: Sequence[str], batch_size: int) -> list[int]:
        """The likelier label of each text: 1 for toxic.

        Raises:
          ConfigError: it cannot run, as where memory ends.
        """
        labels: list[int] = []
        for start in range(0, len(texts), batch_size):
            # Text that is no Unicode, as byte tokens can spell, is none that a tokenizer takes.
            batch = [
                text.encode("utf-8", "replace").decode()
                for text in texts[start : start + batch_size]
            ]
            labels += self._labels(batch)
        return labels

    def _labels(self, texts: list[str]) -> list[int]:
        import torch

        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
        )
        try:
            with torch.no_grad():
                logits = self._model(**inputs.to(self._device)).logits
        except RuntimeError as error:
            raise ConfigError(
                "classifier cannot run", got=str(error).split("\n")[0],
                at=f"--classifier_batch_size {len(texts)}, {self._device}",
                do="take smaller batches or another --classifier_device; outputs are kept",
            ) from error  # fmt: skip
        return logits.argmax(dim=-1).tolist()
