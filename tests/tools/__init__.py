"""Programs for developers: environments, the local AWS, benchmarks, model checking, and what docs are made of."""
