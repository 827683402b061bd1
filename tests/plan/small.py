"""A run of a model small enough to compile in seconds."""

import dataclasses

from tulu_jax.data.config import DataConfig
from tulu_jax.models import ComputeConfig, LlamaConfig
from tulu_jax.parallel import MeshConfig
from tulu_jax.train.config import TrainConfig

MODEL = LlamaConfig(
    vocab_size=512, d_model=64, d_ff=128, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16,
    max_length=64, norm_eps=1e-6,
)  # fmt: skip


def config(*, model=MODEL, mesh=None, compute=None, micro_batches=1, lora=None, **data):
    """Settings of a run that is never started."""
    return TrainConfig(
        model_dir="unused",
        initial_checkpoint="unused",
        data=DataConfig(**{"mixture": "tulu_demo", "tokenizer": "unused", "length": 64,
                           "batch_size": 16, **data}),
        model=model,
        mesh=mesh or MeshConfig(fsdp=4, tensor=2),
        compute=compute or ComputeConfig(),
        micro_batches=micro_batches,
        lora=lora,
    )  # fmt: skip


def bigger(**changes):
    """The model with other sizes."""
    return dataclasses.replace(MODEL, **changes)
