"""How a robot keeps a target in front of it."""
