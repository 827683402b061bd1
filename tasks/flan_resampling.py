"""Making the FLAN v2 file anew from the collection's submixes, in the shares of either paper.

    from tasks.flan_resampling import TULU_V1_SHARES, resample
    resample("flan_v2", "flan_v2_resampled_100k.jsonl", shares=TULU_V1_SHARES, total=100_000)

reads `flan_v2/<submix>/<submix>.jsonl` for every submix with a share, line by line, twice.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from tasks.templates import SEED
from tulu_jax.errors import DataError
from tulu_jax.files import whole_file

TULU_V1_SHARES = {
    "flan_zsopt": 0.1,
    "flan_fsopt": 0.1,
    "flan_zsnoopt": 0.1,
    "flan_fsnoopt": 0.1,
    "t0_zsopt": 0.08,
    "t0_fsopt": 0.08,
    "t0_zsnoopt": 0.08,
    "t0_fsnoopt": 0.08,
    "niv2_zsopt": 0.1,
    "niv2_fsopt": 0.1,
    "cot_zsopt": 0.025,
    "cot_fsopt": 0.025,
    "dialog_zsopt": 0.015,
    "dialog_fsopt": 0.015,
}
"""Source: allenai/open-instruct scripts/resample_flan_v2.py@e44fcf588."""

TULU_V2_SHARES = {
    "flan_fsopt": 0.2,
    "flan_fsnoopt": 0.2,
    "t0_fsopt": 0.16,
    "t0_fsnoopt": 0.16,
    "niv2_fsopt": 0.23,
    "cot_fsopt": 0.05,
}
"""Few-shot only, and no dialogues. Source: the same script @503407ee8."""


def resample(
    submix_dir: str | Path,
    output: str | Path,
    *,
    shares: Mapping[str, float] = TULU_V1_SHARES,
    total: int = 100_000,
    seed: int = SEED,
) -> dict[str, int]:
    """The number of lines of each submix that were written to the file `output`.

    Of each submix, in the order of `shares`, `int(share * total)` lines are drawn without
    replacement and written in file order. The lines drawn are the reference's for the same files.
    `output` appears when it is complete.

    Raises: DataError when a submix file is missing or has fewer lines than its share.
    """
    rng = random.Random(seed)
    counts = {name: int(share * total) for name, share in shares.items()}
    with whole_file(Path(output), "wb") as out:
        for name, count in counts.items():
            path = Path(submix_dir) / name / f"{name}.jsonl"
            chosen = _choose(path, count, rng) if count else set()
            if chosen:
                with open(path, "rb") as lines:
                    out.writelines(
                        line.rstrip(b"\r\n") + b"\n"
                        for index, line in enumerate(lines)
                        if index in chosen
                    )
    return counts


def _choose(path: Path, count: int, rng: random.Random) -> set[int]:
    """The lines to keep, counted from 0."""
    try:
        with open(path, "rb") as lines:
            num_lines = sum(1 for _ in lines)
    except OSError as error:
        raise DataError("cannot read FLAN submix", got=error.strerror, at=path) from error
    if num_lines < count:
        raise DataError(
            "FLAN submix is too small",
            got=f"{num_lines:,} lines",
            at=path,
            expected=f"at least {count:,}",
            do="ask for a smaller total",
        )
    return set(rng.sample(range(num_lines), count))
