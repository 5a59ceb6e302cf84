"""Speech servers: what each protocol says on the wire, who has which voice, and who may call whom."""
