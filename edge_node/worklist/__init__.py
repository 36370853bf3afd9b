"""Results back into the hospital: one decision about the reading order, evidence of it, and the writers that tell."""
