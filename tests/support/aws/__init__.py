"""The stack's resources in moto or a local AWS, and canned responses of AWS."""
