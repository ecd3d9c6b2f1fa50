"""What `benches/accuracy.py` makes of its record."""
