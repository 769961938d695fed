"""One local AWS for all tests here."""

from tools.local_aws.fixtures import aws, running_aws, tenant

__all__ = ["aws", "running_aws", "tenant"]
