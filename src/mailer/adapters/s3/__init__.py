"""The attachments bucket: uploads, and parked bodies."""
