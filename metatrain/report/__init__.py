"""Reports: a run's files as one page, with charts."""
