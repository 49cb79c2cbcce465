"""How well the router's signals tell a good draft from a bad one, on public outcomes."""
