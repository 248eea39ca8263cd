"""Point the ROS wheels' CMake files at this machine's Python and NumPy headers.

The wheels carry the header folders of the machine they were built on. Run this with the virtual
environment's Python after every installation of the wheels; a second run changes nothing.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

NUMPY_HEADERS = re.compile(r'/opt/python/[^;"\s]*/numpy/[^;"\s]*include')
PYTHON_HEADERS = re.compile(r'/opt/python/[^;"\s/]*/include/python[\d.]+')


def main() -> None:
    for path in Path(sys.prefix, "share").glob("*/cmake/*.cmake"):
        text = path.read_text()
        fixed = NUMPY_HEADERS.sub(numpy.get_include(), text)
        fixed = PYTHON_HEADERS.sub(sysconfig.get_path("include"), fixed)
        if fixed != text:
            path.write_text(fixed)


if __name__ == "__main__":
    main()
