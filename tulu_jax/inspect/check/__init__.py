"""Looking for what should not be trained on: see `tulu data check`."""
