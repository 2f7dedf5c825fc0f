"""The demonstration: which textbook a passage is from, judged by a head on the frozen encoder of a bundle."""
