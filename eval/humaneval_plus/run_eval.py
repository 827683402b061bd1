"""HumanEval+: the problems of HumanEval with many more tests of each.

The test of HumanEval/32 fails whatever it is given (evalplus' issue #125); it is corrected, and the
result says so. Source: Liu et al. (arXiv 2305.01210), evalplus/humanevalplus_release v0.1.10.
"""

from __future__ import annotations

import sys

from eval.codex_humaneval.run_eval import CodexEval


class HumanEvalPlus(CodexEval):
    """See the module."""

    name = "humaneval_plus"
    title = "HumanEval with more tests (HumanEval+)"
    tasks = {
        "humaneval_plus": {
            "eval_pass_at_ks": (1,), "unbiased_sampling_size_n": 1, "temperature": 0.01,
            "timeout_s": 60.0,
        }
    }  # fmt: skip
    data = "humanevalplus/HumanEvalPlus-OriginFmt.jsonl.gz"


if __name__ == "__main__":
    from tulu_jax.cli.evaluate import run_benchmark

    sys.exit(run_benchmark("humaneval_plus"))
