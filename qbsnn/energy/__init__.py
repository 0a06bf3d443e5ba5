"""Operation counts over real data, and estimates of the energy they cost. No Lightning."""
