"""`python -m server_app.report RUN`."""

import sys
from pathlib import Path

from federation import UserError
from server_app.report import write_report
from server_app.report.record import read_record

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m server_app.report RUN")
    try:
        page = write_report(Path(sys.argv[1]))
        print(page, *read_record(Path(sys.argv[1])).damaged, sep="\n")
    except (UserError, OSError) as error:
        sys.exit(str(error))
