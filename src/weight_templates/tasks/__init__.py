"""What models are trained for. A task has a loss for the step, and an evaluation."""
