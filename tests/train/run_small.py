"""A run in a process of its own: arguments FOLDER OPTIONS [PORT PROCESS PROCESSES DEVICES].

OPTIONS are JSON for `run_config`, `mesh` as [data, fsdp, tensor, sequence]. With a port the process
is one of a JAX cluster, with so many virtual devices. Or OPTIONS have a `command` of `tulu`, or a
`far_job`.
"""

import json
import operator
import resource
import sys

import buckets

from train import far_jobs


def main(arguments: list[str]) -> None:
    """Trains; exits with the message of a refusal."""
    folder, text, *cluster = arguments
    import jax

    options = json.loads(text)
    if options.pop("hurry", False):
        buckets.hurry(setattr, operator.setitem)
    if "command" in options:
        from tulu_jax.cli.main import main as tulu

        sys.exit(tulu(options["command"]))
    if "far_job" in options:
        far_jobs.JOBS[options["far_job"]](folder, options)
        print("RESULT", flush=True)
        return
    if "file_size" in options:  # no file may grow larger: a disk that is full
        size = options.pop("file_size")
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if cluster:
        port, process, processes, devices = map(int, cluster)
        jax.config.update("jax_num_cpu_devices", devices)
        jax.distributed.initialize(
            f"localhost:{port}", processes, process, heartbeat_timeout_seconds=60
        )
    from train import toy
    from train.small import leave_out_what_others_test, model_of, run_config, training_data
    from tulu_jax.checkpoint.manager import Checkpoints
    from tulu_jax.errors import TuluError
    from tulu_jax.parallel import MeshConfig
    from tulu_jax.places import as_place
    from tulu_jax.train import loop, setup

    setup.open_training_data, setup.check_before_data = training_data, model_of
    is_toy, bare = options.pop("toy", False), options.pop("bare", False)
    if is_toy:
        toy.install(loop, setup)
    if is_toy or bare:
        leave_out_what_others_test(setattr)
    restore = Checkpoints.restore

    def restore_aloud(*args):
        print("RESTORING", flush=True)
        return restore(*args)

    Checkpoints.restore = restore_aloud
    hits = []
    jax.monitoring.register_event_listener(
        lambda event, **_: hits.append(1) if event.endswith("/cache_hits") else None
    )
    if "mesh" in options:
        options["mesh"] = MeshConfig(*options["mesh"])
    try:
        result = loop.train(run_config(as_place(folder), **options))
    except TuluError as error:
        sys.exit(f"refused: {error}")
    if cluster:
        jax.distributed.shutdown()  # As any process does at its exit, which a fork leaves out.
    print("CACHE HITS", len(hits))
    print("RESULT", result.step, result.finished, flush=True)
