"""`python -m reporting RUN`."""

import sys
from pathlib import Path

from core import UserError
from reporting import write_report
from reporting.record import read_record

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m reporting RUN")
    try:
        page = write_report(Path(sys.argv[1]))
        print(page, *read_record(Path(sys.argv[1])).damaged, sep="\n")
    except (UserError, OSError) as error:
        sys.exit(str(error))
