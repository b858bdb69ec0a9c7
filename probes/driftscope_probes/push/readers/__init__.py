"""One file per format that is read from disk; registry.py lists them."""
