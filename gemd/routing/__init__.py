"""Which model answers a request, and why: a pure decision over the catalogue."""
