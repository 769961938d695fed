"""What every service does with a send request: end it unsent, pin its uploads, keep and find its parked body."""
