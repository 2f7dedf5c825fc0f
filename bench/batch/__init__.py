"""Scaling of a batch over nodes of this machine, its work in little memory, and the failures that it survives."""
