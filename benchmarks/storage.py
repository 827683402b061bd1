"""Buckets beside disks: saves, goodput, imports, and what a host reads of a model.

    python benchmarks/storage.py save --gb 4.4            # how long a save blocks the loop
    python benchmarks/storage.py goodput --minutes 5      # with a checkpoint a minute
    python benchmarks/storage.py import --shape 1b        # 2.2 GB from a bucket and from a disk
    python benchmarks/storage.py share --shape 1b         # bytes that one host of eight reads

The bucket is fake-gcs-server on this machine and its disk. Saves and goodput go through a proxy
that lets every request wait for `--latency_ms`; imports go to the emulator itself, since the proxy
is one Python process that moves some 300 MB/s. The proxy counts the bytes that are read.
Emulator, proxy and ourselves share the cores: real storage takes none of ours. Prints a JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MADE = "2026-01-01T00:00:00Z"
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests"), str(HERE)]
if "share" in sys.argv[1:2]:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import buckets  # noqa: E402
import interchange  # noqa: E402

from tulu_jax.cli.absent_tpu import leave_out_absent_tpu  # noqa: E402
from tulu_jax.places import Address  # noqa: E402


def save(args: argparse.Namespace, storage: buckets.Storage, bucket: Address) -> dict[str, Any]:
    """Saves a state of --gb to a folder and to the bucket: seconds until the loop goes on, and all.

    The first save of each is left out: it starts threads and clients.
    """
    import jax
    import jax.numpy as jnp

    from tulu_jax.checkpoint.manager import Checkpoints
    from tulu_jax.train.state import TrainState

    layers, width = 16, 1024
    arrays = max(1, round(args.gb * 1e9 / (layers * width * width * 4)))
    params = {
        f"w{n}": jax.random.normal(jax.random.key(n), (layers, width, width)) for n in range(arrays)
    }
    state = TrainState(jnp.int32(0), {"layers": params}, ())
    found: dict[str, Any] = {"gb": round(arrays * layers * width * width * 4 / 1e9, 2)}
    for name, place in (("disk", args.folder / "run"), ("bucket", bucket / "run")):
        blocked, whole = [], []
        with Checkpoints(place, keep=1) as checkpoints:
            for step in range(1, args.rounds + 2):
                began = time.perf_counter()
                checkpoints.save(state._replace(step=jnp.int32(step)), {})
                blocked.append(time.perf_counter() - began)
                checkpoints.wait()
                whole.append(time.perf_counter() - began)
        found |= {f"{name}_blocked_s": _median(blocked[1:]), f"{name}_whole_s": _median(whole[1:])}
    return found


def goodput(args: argparse.Namespace, storage: buckets.Storage, bucket: Address) -> dict[str, Any]:
    """A run in the bucket, as benchmarks/goodput.py makes it; what that prints is its result."""
    words = {"minutes": args.minutes, "checkpoint_s": args.checkpoint_s}
    flags = [f"--{name}={value}" for name, value in words.items()]
    command = [sys.executable, str(HERE / "goodput.py"), *flags, f"--model_dirs={bucket}/runs"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"goodput": done.stdout.splitlines()[-1]}


def imports(args: argparse.Namespace, storage: buckets.Storage, bucket: Address) -> dict[str, Any]:
    """`tulu import` from a folder and from the bucket in turns; the first of each is left out."""
    model, target = exported(args), args.folder / "back"
    _put(model, args.folder / "storage", bucket / "model")
    os.environ |= {
        "STORAGE_EMULATOR_HOST": storage.direct,
        "TENSORSTORE_GCS_HTTP_URL": storage.direct,
    }
    rounds: dict[str, list[float]] = {"disk_s": [], "bucket_s": []}
    for _ in range(args.rounds + 1):
        for name, source in (("disk_s", model), ("bucket_s", bucket / "model")):
            interchange.warm(model)
            words = ("import", "--hf", source, "--model_dir", target, "--dtype", "bfloat16")
            rounds[name].append(interchange.child(target, *words)["s"])
    found = {name: _median(seconds[1:]) for name, seconds in rounds.items()}
    return {**found, "ratio": round(found["bucket_s"] / found["disk_s"], 2)}


def share(args: argparse.Namespace, storage: buckets.Storage, bucket: Address) -> dict[str, Any]:
    """Bytes that one host of eight asks the bucket for, beside an eighth of all."""
    from tulu_jax.checkpoint import hf
    from tulu_jax.checkpoint.reader import leaves_of
    from tulu_jax.checkpoint.sharded import even_shares
    from tulu_jax.parallel import MeshConfig, layout_for, make_mesh

    config = interchange.SHAPES[args.shape]
    _put(exported(args), args.folder / "storage", bucket / "model")
    storage.calm()
    folder = hf.open_folder(bucket / "model", None)
    shardings = leaves_of(layout_for(config, make_mesh(MeshConfig(fsdp=8))).params(config))
    total = 0
    for path in folder.paths():
        sharding = even_shares(folder, path, shardings[path]) or shardings[path]
        index, *_ = sharding.addressable_devices_indices_map(folder.shape(path)).values()
        folder.read_slice(path, index)
        total += folder.dtype(path).itemsize * _size(folder.shape(path))
    read = storage.fault()["bytes"]
    return {"model_bytes": total, "read_bytes": read, "over_an_eighth": round(8 * read / total, 3)}


def exported(args: argparse.Namespace) -> Path:
    """A Hugging Face folder of random bfloat16 weights."""
    run, model = args.folder / "random", args.folder / "hf"
    interchange.write_run(run, interchange.SHAPES[args.shape])
    words = ("export", "--model_dir", run, "--output", model, "--tokenizer", "none")
    interchange.child(model, *words)
    return model


def _put(folder: Path, root: Path, place: Address) -> None:
    """Lays files where the emulator keeps the objects: sent, a GB takes it 20 to 45 s."""
    facts = {"StorageClass": "STANDARD", "ContentType": "application/octet-stream", "Generation": 1,
             "Etag": "e", "Created": MADE, "Updated": MADE}  # fmt: skip
    target = shutil.copytree(folder, root / place.bucket / place.key)
    for file in target.iterdir():
        os.setxattr(file, "user.metadata", json.dumps(facts).encode())


def _median(seconds: list[float]) -> float:
    return round(statistics.median(seconds), 3)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size


MEASURED = {"save": save, "goodput": goodput, "import": imports, "share": share}


def main() -> None:
    """Starts the storage, measures, prints."""
    leave_out_absent_tpu()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=MEASURED)
    parser.add_argument("--gb", type=float, default=4.4, help="of the state that is saved")
    parser.add_argument("--shape", choices=interchange.SHAPES, default="1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--checkpoint_s", type=float, default=60.0)
    parser.add_argument("--latency_ms", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, help="where there is room (default: a new one)")
    args = parser.parse_args()
    lacking, program = buckets.missing(buckets.Google), buckets.Google.find()
    if lacking or program is None:
        parser.error(str(lacking))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        args.folder = Path(folder)
        storage = buckets.Google(program, args.folder / "storage")
        try:
            buckets.set_environment(storage)
            os.environ["TULU_SCRATCH_DIR"] = str(args.folder / "scratch")
            storage.fault(latency_ms=args.latency_ms)
            found = MEASURED[args.what](args, storage, Address("gs", storage.new_bucket()))
            print(json.dumps({"what": args.what, "latency_ms": args.latency_ms, **found}))
        finally:
            storage.stop()


if __name__ == "__main__":
    main()
