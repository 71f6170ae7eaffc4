"""`python -m llm_qfl.cli` is `llm-qfl`."""

import sys

from llm_qfl.cli import main

if __name__ == "__main__":
    sys.exit(main())
