"""One file a family: its `config.json` and its table of tensors."""
