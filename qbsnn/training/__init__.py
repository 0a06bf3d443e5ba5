"""Training: the LightningModule, its optimiser, and one run from settings to result file."""
