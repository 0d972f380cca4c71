"""How long what the tables hold may be."""

HASH_DIGITS = 64
PROJECTION_CHARACTERS = 200
