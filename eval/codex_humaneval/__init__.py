"""Codex-Eval: HumanEval and HumanEval+, Python functions that a model completes and tests check."""
