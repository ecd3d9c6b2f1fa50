"""The parts of `benches/compare.py`: what is measured, by whom, and how it is shown."""
