"""What the house costs: measured on demand, never in the default suite.

``python -m tests.bench --help`` says how; `RESULTS.md` holds the last whole run.
"""
