"""Programs that operators run with the AWS SDK and credentials of their machine; they are in no function's package."""
