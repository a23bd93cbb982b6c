"""The pure parts of a training step: durations, schedules, optimizers, losses and mixing."""
