"""MMLU: 57 subjects of multiple choice."""
