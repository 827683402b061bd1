"""A run in a process of its own: `python run_small.py FOLDER OPTIONS [PORT PROCESS]`.

OPTIONS are JSON for `run_config`, `mesh` as [data, fsdp, tensor]. With a port the process is one
of two of a JAX cluster, with four virtual devices each.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path


def main() -> None:
    folder, options, *cluster = sys.argv[1:]
    import jax

    if cluster:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", 4)
        jax.distributed.initialize(f"localhost:{cluster[0]}", 2, int(cluster[1]))
    from train.small import MODEL, run_config, training_data
    from tulu_jax.errors import TuluError
    from tulu_jax.parallel import MeshConfig
    from tulu_jax.train import loop, setup

    setup.open_training_data = training_data
    changes = json.loads(options)
    if "num_heads" in changes:
        changes["model"] = dataclasses.replace(MODEL, num_heads=changes.pop("num_heads"))
    if "mesh" in changes:
        changes["mesh"] = MeshConfig(*changes["mesh"])
    try:
        result = loop.train(run_config(Path(folder), **changes))
    except TuluError as error:
        sys.exit(f"refused: {error}")
    print("RESULT", result.step, result.finished, flush=True)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent.parent), os.getcwd()]
    main()
