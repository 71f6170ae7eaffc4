"""`python -m server_app.report RUN`."""

import sys
from pathlib import Path

from federation import UserError
from server_app.report import write_report

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m server_app.report RUN")
    try:
        print(write_report(Path(sys.argv[1])))
    except (UserError, OSError) as error:
        sys.exit(str(error))
