"""Being here puts this folder on the path, so that the tests in ros/ find the helpers in it."""

import os

from mosam_ros.cli import REPRODUCIBLE

os.environ.update(REPRODUCIBLE | os.environ)
