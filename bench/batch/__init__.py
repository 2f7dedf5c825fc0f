"""How a batch scales on nodes of this machine, what it does in little memory, and what it survives."""
