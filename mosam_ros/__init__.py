"""Track selected objects in a camera stream: streaming SAM 2 with motion prompts, for ROS 2."""

import os
from pkgutil import extend_path

# The generated messages live in the install space, this package perhaps in the source tree.
__path__ = extend_path(__path__, __name__)

# PyTorch's threads wait for each other by spinning, for milliseconds. Where other processes want
# the same cores that makes a frame many times slower. OpenMP reads this when PyTorch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
