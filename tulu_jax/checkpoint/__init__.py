"""Weights on disk: Orbax checkpoints of a run, and Hugging Face folders (`hf`)."""
