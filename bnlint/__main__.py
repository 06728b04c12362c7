"""``python -m bnlint``."""

import sys

# ``-m`` puts the working directory first on the import path, where a linted ``random.py`` would be run.
if not getattr(sys.flags, "safe_path", False):  # Python 3.11 has a flag against just that
    del sys.path[0]

from bnlint.cli import main

if __name__ == "__main__":
    sys.exit(main())
