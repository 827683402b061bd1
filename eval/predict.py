r"""Answers to prompts of one's own, with open-instruct's flags.

    python -m eval.predict --model_name_or_path MODEL --input_files a.jsonl b.jsonl \
        --output_file out.jsonl --use_chat_format

Lines have `id` and `prompt`, or `messages`; they come back, of all files in order, with `output`.
Source: allenai/open-instruct:eval/predict.py@662c2ad49, but for its defects: it answers the last
file alone, and fails on messages.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from tulu_jax.cli.evaluate import run_predict

    sys.exit(run_predict())
