#!/usr/bin/env python
"""Django's command line for metadet."""

import os
import sys


def main() -> None:
    if sys.argv[1:2] == ["up"]:  # the supervisor and its guard stay free of Django
        from metadet_site.local_stack.guard import main as up

        sys.exit(up(sys.argv[2:]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "metadet_site.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
