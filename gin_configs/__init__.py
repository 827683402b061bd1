"""Recipes: models, hardware, runs. A package only so that an installed `tulu` finds them."""
