"""The demo's tokenizer and the script that trains it."""
