"""Teachers asked beforehand, see `kd.networks.kept`."""
