"""The sky server as a process of its own: settings as JSON in the first argument, until standard input closes."""

import json
import os
import sys

from photoz.errors import PhotozError
from photoz.sky.serving import serve

if __name__ == "__main__":
    try:
        serve(**json.loads(sys.argv[1]), until=lambda: os.read(0, 1))
    except PhotozError as error:
        print(error, file=sys.stderr)
        sys.exit(int(error.exit_code))
