"""Figures for those who draw curves: what is counted, how it is told, and where it goes.

Only what the settings ask for is imported: `gemd.metrics.exposition` brings prometheus_client.
"""
