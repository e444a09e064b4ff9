"""`python -m hotswap.embedded`: see hotswap.embedded.run."""

from hotswap import quick_start  # isort: split

import sys

from hotswap.embedded.run import main

quick_start.imports_are_done()

if __name__ == "__main__":
    sys.exit(main())
