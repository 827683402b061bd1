"""The small JSON files of a Hugging Face tokenizer folder, and which files make up a tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tulu_jax.chat.config_rules import check_config
from tulu_jax.errors import TokenizerError
from tulu_jax.files import instead, kind_of_file, read_json, real_path
from tulu_jax.places import (
    Address,
    Place,
    as_place,
    is_address,
    local_folder,
    readable,
    write_file,
)

Json = dict[str, Any]

SENTENCEPIECE_NAME = "tokenizer.model"
DEFINITION_NAME = "tokenizer.json"
VOCAB_NAME, MERGES_NAME = "vocab.json", "merges.txt"
CONFIG_NAME = "tokenizer_config.json"
TEMPLATE_NAME = "chat_template.jinja"
SPECIAL_NAME = "special_tokens_map.json"
ADDED_NAME = "added_tokens.json"

MAIN_NAMES = (SENTENCEPIECE_NAME, DEFINITION_NAME, VOCAB_NAME)
"""Files that make a folder a tokenizer's; of several, the first counts."""

TOKENIZER_FILES = (
    *MAIN_NAMES, MERGES_NAME, CONFIG_NAME, SPECIAL_NAME, ADDED_NAME, TEMPLATE_NAME,
)  # fmt: skip
"""Every file that `load_tokenizer` may read."""


def find_main(path: Path) -> Path | None:
    """The main file that `path` is or holds, or that it keeps in `tokenizer/` as a run does."""
    if path.is_file():
        return path
    places = [folder / name for folder in (path, path / "tokenizer") for name in MAIN_NAMES]
    return next((file for file in places if file.is_file()), None)


def holds_tokenizer(path: str | Place) -> bool:
    """Whether `load_tokenizer` would find a tokenizer there (it may still be an unusable one)."""
    if is_address(path) and not readable(path).is_dir():
        return False
    return find_main(local_folder(path)) is not None


def copy_tokenizer_files(source: str | Place, folder: str | Place) -> list[Place]:
    """Copies the tokenizer's files from where `source` holds them; an equal tokenizer loads there.

    `source` is what `load_tokenizer` takes, or a tokenizer's `path`. Returns the files written:
    none where `source` holds no tokenizer, or is that folder already.

    Raises: TokenizerError, see `tokenizer_files`.
    """
    folder = as_place(folder)
    files = tokenizer_files(source)
    if isinstance(folder, Address):
        for name, file in files.items():
            write_file(folder / name, file.read_bytes())
        return [folder / name for name in files]
    if not files or real_path(next(iter(files.values())).parent) == real_path(folder):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(file, folder / name)) for name, file in files.items()]


def tokenizer_files(source: str | Place) -> dict[str, Path]:
    """The tokenizer's files that lie where `source` says, by the names they have in a folder.

    Raises:
        TokenizerError: one of them is a Git LFS pointer, a web page, or the like (`check_kind`).
    """
    main = find_main(local_folder(source))
    if main is None:
        return {}
    start = main.name if main.name in MAIN_NAMES else SENTENCEPIECE_NAME
    sources = {name: main.parent / name for name in TOKENIZER_FILES}
    names = TOKENIZER_FILES[TOKENIZER_FILES.index(start) :]
    files = {
        name: file
        for name, file in {**sources, start: main}.items()
        if name in names and file.is_file()
    }
    for file in files.values():
        check_kind(file)
    return files


def read_config(main: Path) -> Json:
    """The Hugging Face settings beside a tokenizer's main file, merged; none are needed.

    Raises:
        TokenizerError: a file is not JSON, or says what is not honoured (`check_config`).
    """
    folder = main.parent
    special, config = json_if_there(folder / SPECIAL_NAME), json_if_there(folder / CONFIG_NAME)
    for name in ("bos_token", "eos_token"):
        both = token_text(special.get(name)), token_text(config.get(name))
        if both[0] and both[1] and both[0] != both[1]:
            raise TokenizerError(
                f"{name} is one token in {SPECIAL_NAME} and another in {CONFIG_NAME}",
                got=f"{both[0]!r} and {both[1]!r}", at=folder, expected="one",
                do="programs differ in which they read: keep the one the model was trained with",
            )  # fmt: skip
    config = {**special, **config}
    if "added_tokens_decoder" not in config:
        added = json_if_there(folder / ADDED_NAME)
        config["added_tokens_decoder"] = {str(i): piece for piece, i in added.items()}
    check_config(config, main)
    return config


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without the mark that some editors put in front.

    Raises: TokenizerError.
    """
    check_kind(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(
            f"{path.name} is not text", got=error, at=path, expected="UTF-8", do="copy it again"
        ) from error


def check_kind(path: Path) -> None:
    """Passes when a file does not begin as one that is no tokenizer's: a Git LFS pointer, say.

    Raises: TokenizerError.
    """
    try:
        kind = kind_of_file(path)
    except OSError as error:
        raise TokenizerError(f"{path.name} cannot be read", got=error, at=path) from error
    if kind in (None, "an empty file"):  # of which its reader says more
        return
    raise TokenizerError(
        f"{path.name} is no tokenizer's file",
        got=kind,
        at=path,
        expected="a SentencePiece model" if path.suffix == ".model" else "text in UTF-8",
        do=instead(str(kind)) or "copy it again",
    )


def json_if_there(path: Path) -> Json:
    """The object in a JSON file; an empty one where there is no file.

    Raises: TokenizerError.
    """
    if not path.is_file():
        return {}
    check_kind(path)
    return read_json(path, TokenizerError, mend="copy it again")


def token_text(token: object) -> str | None:
    """The text of a token in a Hugging Face file: a string, or an object with `content`."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None
