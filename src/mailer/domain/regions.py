"""The regions of Amazon SES, and the AWS partition of each."""

from collections.abc import Mapping

SES_REGIONS: Mapping[str, tuple[str, ...]] = {
    "aws": (
        *("af-south-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2"),
        *("ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7"),
        *("ca-central-1", "ca-west-1", "eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1"),
        *("eu-west-2", "eu-west-3", "il-central-1", "me-central-1", "me-south-1", "mx-central-1", "sa-east-1", "us-east-1"),
        *("us-east-2", "us-west-1", "us-west-2"),
    ),
    "aws-us-gov": ("us-gov-east-1", "us-gov-west-1"),
    "aws-eusc": ("eusc-de-east-1",),
}
"""By partition, as botocore's endpoint data lists them; a test compares the two."""

_PREFIXES = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b", "eusc-": "aws-eusc"}


def partition_of(region: str) -> str:
    """Return the AWS partition that a region is in."""
    return next((partition for prefix, partition in _PREFIXES.items() if region.startswith(prefix)), "aws")
