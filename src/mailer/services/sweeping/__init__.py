"""What runs every minute: end what is overdue, and put parked mail back on the queue."""
