"""What published codes compute under the names of losses, compared with this project.

docs/conventions.md is written from here. What is said of a code was read in its
repository or is a value that it computed (`tests/golden`).
"""

from docs.conventions_page import kullback_leibler, mixtures, others

FAMILIES = kullback_leibler.FAMILIES + mixtures.FAMILIES + others.FAMILIES
"""All tables of the page."""
