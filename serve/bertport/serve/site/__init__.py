"""A bundle as a static page that answers in the visitor's browser: `bertport site`."""
