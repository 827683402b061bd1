"""What else than runs may be killed while it writes to a bucket: see `run_small`."""

from tasks import demo

ROWS = [
    {"dataset": "dolly", "id": f"d{n}",
     "messages": [{"role": "user", "content": f"What is {n}?"},
                  {"role": "assistant", "content": f"It is {n}, as it was. " * (n % 5)}]}
    for n in range(1, 200)
    if n % 5
]  # fmt: skip


def store_options(place):
    """Of a store below `place`, in the demo's tokens."""
    from tulu_jax.data.keys import PrepareOptions

    return PrepareOptions(tokenizer=str(demo.TOKENIZER_DIR), max_length=256, data_dir=str(place))


def publish(folder, options):
    """Prepares a store of `ROWS`; the store."""
    from tulu_jax.data.prepare import prepare

    (store,) = prepare("tulu_dolly", store_options(folder), reader=lambda spec, split: iter(ROWS))
    return store


def export(folder, options):
    """Exports the run `options["run"]` in small shards."""
    from tulu_jax.cli.main import main

    words = ("export", "--model_dir", options["run"], "--output", str(folder))
    assert main([*words, "--max_shard_size", "4KB"]) == 0


JOBS = {"publish": publish, "export": export}
