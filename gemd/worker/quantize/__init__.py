"""Weights written anew with fewer bits, tensor by tensor, in bounded memory and resumable."""
