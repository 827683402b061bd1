"""AlpacaEval: see run_eval."""
