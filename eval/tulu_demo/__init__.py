"""The generated questions of `tulu demo`."""
