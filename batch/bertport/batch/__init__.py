"""Batch: files of many rows answered by a bundle, on one machine or on a cluster of Ray."""
