"""What all benchmarks share: results, their statistics, comparisons."""
