"""From conversations to batches: raw records, tokenized stores, packing plans, the loader.

Only the folder `seqio_glue` sees TensorFlow, TFDS and SeqIO; nothing else here imports it.
"""
