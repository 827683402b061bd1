"""What every test may use."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, tokenizers and models that `TULU_SHARED` names."""
    path = os.environ.get("TULU_SHARED")
    if not path:
        pytest.skip("TULU_SHARED is unset: it names the folder of real data and reference outputs")
    return Path(path).resolve()
