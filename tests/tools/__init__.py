"""Programs for developers: environments, the local AWS, benchmarks, model checking, generated parts of the docs."""
