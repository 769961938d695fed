"""Pages and tables of docs/ that are generated from the code."""
