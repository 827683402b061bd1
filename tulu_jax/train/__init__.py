"""Masked-loss fine-tuning: state, step, guards, the loop."""
