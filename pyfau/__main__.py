"""`python -m pyfau`."""

import sys

from pyfau.cli import main

sys.exit(main())
