"""The parts of benches/ingest.py: what is measured, and how."""
