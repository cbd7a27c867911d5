"""Training: plan, model, loop, store; and what runs a trained model."""
