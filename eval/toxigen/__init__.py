"""ToxiGen: whether a model goes on with hateful text."""
