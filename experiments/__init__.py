"""Experiments, one module each; `make exp NAME=...` runs them."""
