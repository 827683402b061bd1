"""`python -m tulu_jax ...` is the `tulu` command."""

import sys

if __name__ == "__main__":
    try:
        from tulu_jax.cli.main import main
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(main())
