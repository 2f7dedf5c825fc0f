"""HTTP: the protocol, bodies, admission and draining."""
