"""gemd: a desktop daemon that picks, keeps warm and serves local language models."""

__version__ = "0.1.0"
