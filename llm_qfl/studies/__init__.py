"""Studies: a grid of settings and seeds, or a search, as runs side by side."""

from llm_qfl.studies.study import Study, read_study, study

__all__ = ["Study", "read_study", "study"]
