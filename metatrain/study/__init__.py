"""Studies: runs over seeds, and the tables computed from them, described in a YAML file."""
