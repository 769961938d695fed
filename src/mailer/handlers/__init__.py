"""AWS calls us here: thin functions that parse an event, call a service and shape the answer."""
