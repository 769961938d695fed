"""The sweeper, which runs every minute: it ends expired requests and puts parked mail back on the queue."""
