"""Services: the order of steps. No AWS in here; every dependency is an argument."""
