"""Throughput: how fast this machine trains a configuration, and what holds it back."""
