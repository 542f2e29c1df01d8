"""Experiments that kill jobs and break the services under them, to see that nothing is ever lost."""
