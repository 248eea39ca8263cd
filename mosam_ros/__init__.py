"""Track selected objects in a camera stream: streaming SAM 2 with motion prompts, for ROS 2."""

from pkgutil import extend_path

# The generated messages live in the install space, this package perhaps in the source tree.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
