"""What the service is held against: the limit of the machine, and what a team would use instead."""
