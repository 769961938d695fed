"""What the functions behind the REST API share: routing, models, problems, and the OpenAPI document."""
