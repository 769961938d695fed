"""The stack's resources in moto or a local AWS, and answers of AWS that a test makes up."""
