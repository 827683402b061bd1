"""Runs programs that models wrote, isolated by the kernel, and says whether their tests pass."""

from eval.sandbox.programs import Limits, Mode, Outcome, Program, SandboxError
from eval.sandbox.run import run_programs

__all__ = ["Limits", "Mode", "Outcome", "Program", "SandboxError", "run_programs"]
