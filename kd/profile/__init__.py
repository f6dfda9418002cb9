"""The layer profile of a finished run: `make profile RUN=runs/NAME/SEED`."""
