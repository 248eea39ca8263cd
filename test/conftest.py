"""Being here puts this folder on the path, so that the tests in ros/ find the helpers in it."""
