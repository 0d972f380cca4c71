#!/usr/bin/env python
"""Django's command line for Dezky audit."""

import os
import sys
import traceback


def main() -> None:
    """Run one management command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dezky.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    # Of verify_audit, 1 says that the log was tampered with.
    failed = 2 if sys.argv[1:2] == ["verify_audit"] else 1
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.stderr.write(f"manage.py: {error}\n")
        sys.exit(failed)
    except Exception:
        traceback.print_exc()
        sys.exit(failed)


if __name__ == "__main__":
    main()
