"""How XLA compiles in tests: nine times as fast as for users.

Small steps take a second, not seven. What comes out computes the same, only slower, which these
sizes do not show. `tests/cli` trains, times and makes the demo in processes of its own that compile
as users' do.
"""

FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"

AS_USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
"""Options for one program that runs long enough to be worth its compilation."""


def flags(devices: int = 1) -> str:
    """`XLA_FLAGS` for a process with so many virtual devices."""
    return f"{FLAGS} --xla_force_host_platform_device_count={devices}"
