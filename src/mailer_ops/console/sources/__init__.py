"""Sources of data: each returns a value or its trouble."""
