"""`python -m hotswap.embedded`: see hotswap.embedded.run."""

import sys

from hotswap.embedded.run import main

if __name__ == "__main__":
    sys.exit(main())
