"""HumanEval+: HumanEval with many more tests."""
