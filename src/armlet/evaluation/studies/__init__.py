"""Studies: many models, tasks, treatments and seeds, written down before the run, and one report."""
