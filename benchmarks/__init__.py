"""Speed and memory beside peers, run as ``python -m benchmarks.NAME``; ``make bench`` runs all and writes the page."""
