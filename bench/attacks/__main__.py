"""``python -m bench.attacks``: lies about updates and moments."""

import sys

from bench.attacks.lies import main

sys.exit(main(sys.argv[1:]))
