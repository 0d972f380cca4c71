"""The platform's customers."""
