"""`tulu import` and `tulu export` of large random models: time beside `cp`, and peak memory.

    python benchmarks/interchange.py FOLDER --shape 1b        # import and export, three times each
    python benchmarks/interchange.py FOLDER --shape 7b --export_only

Weights are random bfloat16, written straight to files. Every measured command is a process of its
own; its peak memory is the kernel's (VmHWM), and the interpreter's own, after the imports that
a command makes, is taken from it. `cp` copies the weights file in the same round, so that a busy
machine slows both. Before each of them what it reads is read once, so that all find it in the page
cache, and what was written before is brought to the disk. What the command wrote the last time is
removed at the very last moment: so each of them, `cp` too, finds as much memory for the page cache,
which a virtual machine may have to get from its host. The first round is left out for that reason.
Neither `cp` nor we wait for the disk. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np

from tulu_jax.checkpoint.arrays import save_params
from tulu_jax.checkpoint.lazy import LazyArray
from tulu_jax.checkpoint.reader import tree_of
from tulu_jax.cli.absent_tpu import leave_out_absent_tpu
from tulu_jax.models import LlamaConfig, config_to_dict
from tulu_jax.models.family import declared_weights

SHAPES = {
    "tiny": LlamaConfig(vocab_size=512, d_model=64, d_ff=128, num_layers=2, num_heads=4,
                        num_kv_heads=2, head_dim=16, max_length=2048, norm_eps=1e-5),
    "1b": LlamaConfig(vocab_size=32_000, d_model=2048, d_ff=5632, num_layers=22, num_heads=32,
                      num_kv_heads=4, head_dim=64, max_length=2048, norm_eps=1e-5),
    "7b": LlamaConfig(vocab_size=32_000, d_model=4096, d_ff=11_008, num_layers=32, num_heads=32,
                      num_kv_heads=32, head_dim=128, max_length=4096, norm_eps=1e-5),
}  # fmt: skip

CHILD = """
import json, os, pathlib, shutil, sys, time
import jax
from tulu_jax.checkpoint import hf, arrays, manager, meta_llama, resize
from tulu_jax.cli.main import main
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
shutil.rmtree(sys.argv.pop(1), ignore_errors=True)
before, cpu, start = peak(), time.process_time(), time.perf_counter()
status = main()
spent = time.perf_counter() - start
print(json.dumps({"s": spent, "cpu_s": time.process_time() - cpu, "mib": peak() - before,
                  "interpreter_mib": before}))
sys.exit(status)
"""


def write_run(run: Path, config: LlamaConfig) -> None:
    """A run folder with random bfloat16 weights, made part by part."""
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        """Random bits with exponents of small numbers: what weights look like to a disk."""
        bits = rng.integers(0, 2**16, shape, dtype=np.uint16)
        return ((bits & 0x80FF) | 0x3C00).view(ml_dtypes.bfloat16)

    params = {
        path: LazyArray(
            shape := weight.value.shape,
            np.dtype(ml_dtypes.bfloat16),
            lambda shape=shape: draw(shape),
            lambda start, stop, shape=shape: draw((stop - start, *shape[1:])),
            path[0] == "layers",
        )
        for path, weight in declared_weights(config).items()
    }
    save_params(run, tree_of(params), {"model": config_to_dict(config)})


def child(old: Path, *words: object) -> dict[str, float]:
    """Runs `tulu WORDS` in a process of its own, which first removes `old`; its seconds and MiB."""
    command = [sys.executable, "-c", CHILD, str(old), *map(str, words)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(result.stdout.splitlines()[-1])


def copy_seconds(folder: Path, target: Path) -> float:
    """How long `cp` takes for the weights files of a folder."""
    warm(folder)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    start = time.perf_counter()
    subprocess.run(["cp", *folder.glob("*.safetensors"), target], check=True)
    return time.perf_counter() - start


def warm(folder: Path) -> None:
    """Reads every file once, when nothing is left to be written to the disk."""
    os.sync()
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb", buffering=0) as opened:
                while opened.read(2**24):
                    pass


def measure_round(root: Path, *, export_only: bool) -> dict[str, float]:
    """One export, one copy of its files, and one import with and one without checksums."""
    run, out, back = root / "run", root / "out", root / "back"
    commands: dict[str, tuple[Path, tuple[object, ...]]] = {
        "export": (out, ("export", "--model_dir", run, "--output", out, "--tokenizer", "none")),
    }
    words = ("import", "--hf", out, "--model_dir", back, "--dtype", "bfloat16")
    if not export_only:
        commands["import"] = back, words
        commands["import_unchecked"] = back, (*words, "--skip_checksums")
    found: dict[str, float] = {}
    for name, (target, command) in commands.items():
        warm(run if name == "export" else out)
        done = child(target, *command)
        found |= {f"{name}_{key}": value for key, value in done.items()}
    if not export_only:
        found["cp_s"] = copy_seconds(out, root / "copy")
        found |= {f"{name}_over_cp": found[f"{name}_s"] / found["cp_s"] for name in commands}
    return found


def main() -> None:
    """Measures and prints the medians of the rounds."""
    leave_out_absent_tpu()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--export_only", action="store_true")
    args = parser.parse_args()
    root, config = args.folder / args.shape, SHAPES[args.shape]
    if not (root / "run").is_dir():
        write_run(root / "run", config)
    rounds = []
    for _ in range(args.rounds + 1):
        rounds.append(measure_round(root, export_only=args.export_only))
        print({name: round(v, 2) for name, v in rounds[-1].items()}, file=sys.stderr, flush=True)
    rounds = rounds[1:]
    medians = {key: round(statistics.median(r[key] for r in rounds), 3) for key in rounds[0]}
    weights = {"shape": args.shape, "weights": config.num_params, "gb": config.num_params * 2 / 1e9}
    print(json.dumps({**weights, "rounds": args.rounds, **medians}))


if __name__ == "__main__":
    main()
