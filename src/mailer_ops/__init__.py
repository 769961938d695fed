"""Programs that operators run, on the AWS SDK and the credentials of their machine; no function ships them."""
