"""How far probabilities can be believed: scaling them, sets that hold the truth, and what to leave to a person."""
