"""Where a target is in space: from its mask, a registered depth image and the camera's lens."""
