"""The benchmarks, what they share, and what is made of their results."""
