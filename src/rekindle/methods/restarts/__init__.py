"""Learning-rate schedules and re-initialisation."""
