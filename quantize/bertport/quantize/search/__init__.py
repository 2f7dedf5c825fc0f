"""Mixed precision: which layers a budget needs in higher precision."""
