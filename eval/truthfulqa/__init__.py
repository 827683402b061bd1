"""TruthfulQA: questions that some people answer falsely."""
