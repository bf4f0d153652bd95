"""The host that HOPE is a plug-in for, state-spaces/s4: registration, data sets, checkpoints, environment."""
