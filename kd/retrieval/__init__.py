"""The networks of a run, scored by retrieval: a command."""
