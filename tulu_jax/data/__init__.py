"""From conversations to batches: raw records, tokenized stores, packing plans, the loader.

Only `seqio_glue.py` sees TensorFlow, TFDS and SeqIO; nothing else here imports it.
"""
