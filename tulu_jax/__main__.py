"""`python -m tulu_jax ...` is the `tulu` command."""

import sys

from tulu_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
