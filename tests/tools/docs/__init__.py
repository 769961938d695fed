"""Pages and tables of docs/ that are made from the code."""
