"""What tests share: fakes, servers, and what stands in for AWS."""
