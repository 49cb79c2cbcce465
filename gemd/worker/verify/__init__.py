"""Whether weights on disk are what they should be, and as good as they should be."""
