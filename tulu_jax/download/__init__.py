"""Fetching the raw files of a dataset: resumable, checked, from mirrors when need be.

    from tulu_jax.download.run import fetch
    folder = fetch(get_spec("dolly"), "raw")        # raw/dolly/databricks-dolly-15k.jsonl

What lies in a dataset's folder:

    <raw_root>/<dataset>/<filename>         the files of the dataset's sources
    <raw_root>/<dataset>/checksums.json     what was fetched; later runs are held to it
    <raw_root>/<dataset>/.download/         unfinished downloads; gone when all is there
"""
