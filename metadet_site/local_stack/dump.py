"""Dumps or restores the embedded database of a running stack: `python -m metadet_site.local_stack.dump > metadet.sql`."""

import argparse
import os
import subprocess
import sys

from metadet_site.local_stack.home import open_home, published
from metadet_site.local_stack.postgres import find_binaries


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restore", metavar="FILE", help="read FILE into the (empty) database instead")
    options = parser.parse_args()
    url = published(open_home().folder).get("METADET_DATABASE_OWNER_URL")
    if url is None:
        sys.exit("No embedded database runs here; start it with `make run` and leave it running.")
    folder = find_binaries().folder
    if options.restore:
        # The start has made the tables already; what the dump brings replaces them.
        clear = ["-c", "DROP SCHEMA public CASCADE", "-c", "CREATE SCHEMA public"]
        command = [str(folder / "psql"), "--quiet", "--single-transaction", "-v", "ON_ERROR_STOP=1", *clear,
                   "-f", options.restore, url]  # fmt: skip
    else:
        command = [str(folder / "pg_dump"), url]
    return subprocess.run(command, env=os.environ).returncode


if __name__ == "__main__":
    sys.exit(main())
