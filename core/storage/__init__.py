"""Files of a run that a crash cannot leave half written: run folder, checkpoints, locks."""
