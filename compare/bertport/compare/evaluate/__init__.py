"""`bertport evaluate`: every variant of a bundle on labelled data, each against a reference."""
